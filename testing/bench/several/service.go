package several

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/procgroup"
)

// service is a program that serves the models by name.
type service struct {
	name string
	cmd  *exec.Cmd
	base string
	ids  map[string]string // the names of the models by their files' names
}

// stopGrace is how long a service may take to end.
const stopGrace = 30 * time.Second

// stop ends the service and its children.
func (s *service) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.cmd.Wait() }()
	select {
	case err := <-ended:
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil // llama-server's status after a signal is not 0
		}
		return err
	case <-time.After(stopGrace):
		return errors.Join(fmt.Errorf("%s did not end in %s", s.name, stopGrace), s.cmd.Process.Kill())
	}
}

// startOurs starts go-rocm for the models of a directory, of which the host's memory
// has room for one.
func (in *Input) startOurs(ctx context.Context, hostMiB uint64) (*service, error) {
	args := []string{
		"serve", "--listen", "127.0.0.1:0", "--models-dir", in.dir, "--slots", strconv.Itoa(in.slots), "--context", strconv.Itoa(in.slots * slotTokens),
		"--bundle", in.Bundle, "--cache-ram", "-1", "--min-residency", "-1s", "--host-memory", strconv.FormatUint(hostMiB, 10),
	}
	cmd := exec.CommandContext(ctx, in.Command, args...)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start go-rocm: %w", err)
	}
	s := &service{name: "go-rocm", cmd: cmd}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, at, ok := strings.Cut(lines.Text(), " on http://"); ok {
			s.base = "http://" + strings.TrimSpace(at)
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return s, s.list(ctx)
		}
	}
	return nil, fmt.Errorf("go-rocm serve: %w\n%s", cmd.Wait(), &log)
}

// errNoRouter reports a llama-server that was compiled without subprocesses, which a
// router needs.
var errNoRouter = errors.New("llama-server was compiled without subprocesses")

// startRouter starts llama-server's router with the program, the environment and the
// arguments of a child of ours, and with the libraries that make it a router. Its error is
// errNoRouter where there are none and the program is not one without them.
func (in *Input) startRouter(ctx context.Context, of *child) (*service, error) {
	s, err := in.startServer(ctx, of.withLibraries(in.Router), "--models-dir", in.dir, "--models-max", "1")
	if err != nil {
		return nil, fmt.Errorf("start the router: %w", err)
	}
	s.name = "llama-server's router"
	return s, nil
}

// startPlain starts a llama-server with the program, the environment and the arguments of
// a child of ours, and waits until it has loaded a model.
func (in *Input) startPlain(ctx context.Context, of *child, file string) (*service, error) {
	s, err := in.startServer(ctx, of, "--model", filepath.Join(in.dir, file), "--alias", modelName(file))
	if err != nil {
		return nil, fmt.Errorf("start llama-server: %w", err)
	}
	s.name = "llama-server"
	return s, nil
}

// modelName is the name of a model whose file is in the directory of models.
func modelName(file string) string { return strings.TrimSuffix(file, ".gguf") }

// startServer starts llama-server with further arguments, and waits until it lists its
// models.
func (in *Input) startServer(ctx context.Context, of *child, args ...string) (*service, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	program := of.program()
	if program < 0 {
		return nil, fmt.Errorf("no llama-server in %q", of.argv)
	}
	argv := append(slices.Clone(of.argv[1:program+1]), withoutValues(of.argv[program+1:], "--model", "--host", "--port", "--alias")...)
	argv = append(argv, args...)
	cmd := exec.CommandContext(ctx, of.argv[0], append(argv, "--host", "127.0.0.1", "--port", strconv.Itoa(port))...)
	cmd.Dir = of.dir
	for _, e := range of.env {
		name, _, _ := strings.Cut(e, "=")
		if name != "LLAMA_API_KEY" && !strings.HasPrefix(name, "LLAMA_SERVER_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	// A router starts its children as /proc/self/exe, which is the loader of the bundle:
	// it inserts LLAMA_APP_CMD as the first argument (server-models.cpp), and the loader
	// finds the libraries by LD_LIBRARY_PATH.
	if program > 0 {
		cmd.Env = append(cmd.Env, "LLAMA_APP_CMD="+of.argv[program])
	}
	if path := of.libraryPath(); path != "" {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+path)
	}
	procgroup.Configure(cmd, syscall.SIGKILL, 0) // a router has children
	log, err := os.CreateTemp(in.Work, "llama-server-*.log")
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &service{name: "llama-server", cmd: cmd, base: "http://127.0.0.1:" + strconv.Itoa(port)}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		if err = s.ready(ctx); err == nil {
			return s, nil
		}
		text, _ := os.ReadFile(log.Name()) // written above
		switch {
		case bytes.Contains(text, []byte("subprocess is not enabled on this build")):
			return nil, errors.Join(errNoRouter, s.stop())
		case ctx.Err() != nil || time.Now().After(deadline):
			return nil, errors.Join(fmt.Errorf("it does not answer: %w", err), s.stop(), errors.New(string(text)))
		}
	}
}

// ready reads the names of the models, if the service has loaded what it must.
func (s *service) ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/health", http.NoBody)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
		return errors.Join(errors.New(res.Status), err)
	}
	return s.list(ctx)
}

// withoutValues returns the arguments without these flags and their values.
func withoutValues(args []string, flags ...string) []string {
	var out []string
	for i := 0; i < len(args); i++ {
		if slices.Contains(flags, args[i]) {
			i++
			continue
		}
		out = append(out, args[i])
	}
	return out
}

func freePort(ctx context.Context) (int, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	address, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("listening on %s", l.Addr())
	}
	return address.Port, nil
}

// list reads the names of the models.
func (s *service) list(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/models", http.NoBody)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		return fmt.Errorf("list of models: %w", err)
	}
	s.ids = map[string]string{}
	for _, m := range list.Data {
		s.ids[m.ID] = m.ID
	}
	if len(s.ids) == 0 {
		return errors.New("the service has no models")
	}
	return nil
}
