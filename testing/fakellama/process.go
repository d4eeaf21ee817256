package fakellama

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// envGrandchild makes the program run as the grandchild of Process.Grandchild.
const envGrandchild = "FAKELLAMA_GRANDCHILD"

// grandchildLife limits the life of a grandchild that nobody kills.
const grandchildLife = 10 * time.Minute

// Exit ends a process that ran Main. Under the race detector os.Exit waits a second
// (atexit_sleep_ms in golang.org/doc/articles/race_detector), which a test that starts and
// stops a server would pay twice; a race is reported when it happens all the same.
func Exit(code int) { syscall.Exit(code) }

// Main runs the program with llama-server's arguments (without the program name).
// It reads its script and LLAMA_API_KEY through getenv, and returns the exit status
// after SIGTERM or SIGINT, or if it cannot start.
func Main(argv []string, getenv func(string) string, stdout, stderr io.Writer) int {
	if getenv(envGrandchild) != "" {
		time.Sleep(grandchildLife)
		return 0
	}
	log := &logger{w: stderr, start: time.Now()}
	script, err := parseScript(getenv(EnvScript))
	if err != nil {
		log.print("E", "fakellama: %s is no script: %v", EnvScript, err)
		return 2
	}
	log.print("I", "srv  llama_server: initializing ...")
	a, err := parseArgs(argv, script.Process.OldFlags)
	if err != nil {
		log.raw(err.Error() + "\n")
		return 1
	}
	switch {
	case a.help:
		if err := help(stdout, script.Process.OldFlags); err != nil {
			return 1
		}
		return 0
	case a.devices:
		if err := listDevices(stdout, script, getenv, os.LookupEnv); err != nil {
			return 1
		}
		return 0
	case a.version:
		if _, err := io.WriteString(stdout, "version: 0.5.0 (build 0, commit fakellama)\nbuilt with Go\n"); err != nil {
			return 1
		}
		return 0
	}
	if key := getenv("LLAMA_API_KEY"); key != "" {
		a.keys = append(a.keys, key)
	}
	a.marker = getenv("LLAMA_MEDIA_MARKER")
	p := &process{args: a, script: merge(script, a), log: log}
	return p.run()
}

// merge applies the command line to the fields that the script does not set.
func merge(s Script, a args) Script {
	if s.Slots == 0 {
		s.Slots = max(a.slots, 1)
	}
	if s.ContextLen == 0 && a.context > 0 {
		s.ContextLen = max(a.context/s.Slots, 1) // each slot has its share
	}
	if s.APIKey == "" && len(a.keys) > 0 {
		s.APIKey = a.keys[0]
	}
	if s.ModelPath == "" {
		s.ModelPath = a.model
	}
	if s.Alias == "" {
		s.Alias = a.alias
	}
	if len(s.Adapters) == 0 {
		s.Adapters = a.loras
	}
	if s.MediaMarker == "" {
		s.MediaMarker = a.marker
	}
	s.Vision = s.Vision || a.projector != ""
	s.SlotSave = s.SlotSave || a.slotSave != ""
	s.Embeddings = s.Embeddings || a.embeddings || a.reranking
	s.Reranking = s.Reranking || a.reranking
	return s
}

// process is a running program.
type process struct {
	args   args
	script Script
	log    *logger
}

func (p *process) run() int {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	do := p.script.Process
	if do.Grandchild {
		if err := p.grandchild(); err != nil {
			p.log.print("E", "fakellama: grandchild: %v", err)
			return 2
		}
	}
	if do.Log != "" && !do.ExitAfterLoad {
		p.log.raw(do.Log + "\n")
	}
	if do.ExitEarly {
		return p.exit()
	}
	if p.args.model != "" {
		if _, err := os.Stat(p.args.model); err != nil {
			p.log.print("E", "gguf_init_from_file: failed to open GGUF file '%s' (%v)", p.args.model, errors.Unwrap(err))
			p.log.print("E", "srv    load_model: failed to load model, '%s'", p.args.model)
			p.log.print("E", "srv  llama_server: exiting due to model loading error")
			return 1
		}
	}
	if p.args.projector != "" {
		if _, err := os.Stat(p.args.projector); err != nil {
			p.log.print("E", "mtmd_init_from_file: error: Failed to load CLIP model from %s", p.args.projector)
			p.log.print("E", "srv    load_model: failed to load multimodal model, '%s'", p.args.projector)
			p.log.print("E", "srv  llama_server: exiting due to model loading error")
			return 1
		}
	}
	if do.NeverListens {
		<-p.stopSignal(signals)
		return 0
	}
	return p.serve(signals)
}

// serve listens as server-http.cpp does: a host that ends in .sock is a unix
// socket.
func (p *process) serve(signals chan os.Signal) int {
	network, address := "tcp", net.JoinHostPort(p.args.host, strconv.Itoa(p.args.port))
	if strings.HasSuffix(p.args.host, ".sock") {
		network, address = "unix", p.args.host
	}
	ln, err := new(net.ListenConfig).Listen(context.Background(), network, address)
	if err != nil {
		p.log.print("E", "srv  llama_server: couldn't bind HTTP server socket, hostname: %s, port: %d", p.args.host, p.args.port)
		return 1
	}
	srv := New(p.script)
	srv.crash = func(sig int) { raise(syscall.Signal(sig)) }
	srv.flood = func(n int) { p.log.flood(int64(n)) }
	hs := &http.Server{Handler: srv, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(ln) }()
	shown := "http://" + ln.Addr().String()
	if network == "unix" {
		shown = "unix://" + address
	}
	p.log.print("I", "srv    load_model: loading model '%s'", p.args.model)
	var loaded <-chan time.Time // never, unless it is made
	if !p.script.LoadForever {
		loaded = time.After(p.script.LoadTime)
	}
	stop := p.stopSignal(signals)
	select {
	case <-loaded:
	case <-stop:
		return p.close(hs, srv)
	}
	if p.script.Process.ExitAfterLoad {
		if p.script.Process.Log != "" {
			p.log.raw(p.script.Process.Log + "\n")
		}
		return p.exit()
	}
	p.log.print("I", "srv  llama_server: model loaded")
	p.log.print("I", "srv  llama_server: listening on %s", shown)
	if n := p.script.Process.FloodBytes; n > 0 {
		go p.log.flood(n)
	}
	select {
	case err := <-served:
		p.log.print("E", "srv  llama_server: %v", err)
		return 1
	case <-stop:
		return p.close(hs, srv)
	}
}

func (p *process) close(hs *http.Server, srv *Server) int {
	p.log.print("I", "srv    operator(): operator(): cleaning up before exit...")
	srv.Close()
	if err := hs.Close(); err != nil {
		return 1
	}
	return 0
}

// stopSignal returns a channel that is closed at the first signal that stops the
// program.
func (p *process) stopSignal(signals <-chan os.Signal) <-chan struct{} {
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for sig := range signals {
			if sig != syscall.SIGTERM || !p.script.Process.IgnoreSIGTERM {
				return
			}
			p.log.print("W", "fakellama: SIGTERM ignored")
		}
	}()
	return stop
}

func (p *process) exit() int {
	if sig := p.script.Process.ExitSignal; sig != 0 {
		raise(syscall.Signal(sig))
	}
	return p.script.Process.ExitCode
}

// grandchild starts the program again as a process that outlives this one.
func (p *process) grandchild() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(context.Background(), self)
	cmd.Env = append(os.Environ(), envGrandchild+"=1")
	if err := cmd.Start(); err != nil {
		return err
	}
	p.log.raw(fmt.Sprintf("fakellama: grandchild pid %d\n", cmd.Process.Pid))
	return cmd.Process.Release()
}

// logger writes lines as llama.cpp's log does: time since the start, level, text.
type logger struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
}

func (l *logger) print(level, format string, args ...any) {
	us := time.Since(l.start).Microseconds()
	l.raw(fmt.Sprintf("%d.%02d.%03d.%03d %s %s\n", us/60_000_000, us/1_000_000%60, us/1000%1000, us%1000,
		level, fmt.Sprintf(format, args...)))
}

func (l *logger) raw(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.WriteString(l.w, text) // without stderr there is nobody to emit
}

// flood writes n bytes of log.
func (l *logger) flood(n int64) {
	line := "0.00.000.000 D fakellama: " + strings.Repeat("flood ", 20) + "\n"
	for ; n > 0; n -= int64(len(line)) {
		l.raw(line)
	}
}
