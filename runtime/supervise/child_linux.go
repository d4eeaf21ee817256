package supervise

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// errNotListening says that the child does not listen yet.
var errNotListening = errors.New("not listening yet")

// Child is a supervised llama-server. Its address and key stay the same when
// the policy starts another process in its place. Its methods may be called
// from any goroutine.
type Child struct {
	spec    Spec
	key     string
	dir     string // private folder of the record and, mostly, the socket
	path    string // the socket, empty for TCP
	tcpHost string
	tcpPort int
	base    string
	record  record
	lock    *os.File // of dir, nil where the file system has no locks
	cleanup func()

	args    []string // as given to the program
	notes   []string // what Flags changed
	env     []string
	dropped []string

	hub    *hub
	gate   *gate
	client *http.Client

	mu       sync.Mutex
	state    State
	progress float64
	cur      *process
	attempt  int
	err      error
	deaths   map[int]error // by run
	changed  chan struct{}

	stop     chan struct{} // closed to ask for the end
	stopOnce sync.Once
	kill     chan struct{} // closed to end without further waiting
	killOnce sync.Once
	done     chan struct{}
}

// Start starts the program and returns when it is ready to answer. Cancelling
// ctx ends the attempt; afterwards ctx has no more meaning for the child, which
// runs until Stop, the end of this process, or its own.
func Start(ctx context.Context, spec Spec) (*Child, error) {
	spec, err := spec.withDefaults()
	if err != nil {
		return nil, err
	}
	named := spec.SocketDir != ""
	if !named {
		if spec.SocketDir, err = defaultSocketDir(); err != nil {
			return nil, err
		}
	}
	if err := privateDir(spec.SocketDir, named); err != nil {
		return nil, err
	}
	if _, err := ReapOrphans(spec.SocketDir, spec.Log); err != nil {
		spec.Log.Warn("could not look for orphans", "cause", err.Error())
	}
	c := &Child{
		spec: spec, key: newID(24), cleanup: func() {}, hub: newHub(spec.Log), deaths: map[int]error{},
		changed: make(chan struct{}), stop: make(chan struct{}), kill: make(chan struct{}), done: make(chan struct{}),
	}
	if err := c.prepare(); err != nil {
		c.removeDirs()
		return nil, err
	}
	first := make(chan error, 1)
	go c.own(first)
	select {
	case err := <-first:
		if err != nil {
			<-c.done
			return nil, err
		}
		return c, nil
	case <-ctx.Done():
		c.killOnce.Do(func() { close(c.kill) })
		c.stopOnce.Do(func() { close(c.stop) })
		<-c.done
		return nil, fmt.Errorf("start llama-server: %w", context.Cause(ctx))
	}
}

// prepare makes the private folder, the record, the address and the command.
func (c *Child) prepare() error {
	c.dir = filepath.Join(c.spec.SocketDir, newRunName())
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return fmt.Errorf("make the socket folder: %w", err)
	}
	var err error
	if c.lock, err = holdRun(c.dir); err != nil {
		return err
	}
	if c.record, err = newRecord(); err != nil {
		return err
	}
	if c.spec.TCPAddr != "" {
		host, port, _ := net.SplitHostPort(c.spec.TCPAddr)
		if c.tcpPort, err = strconv.Atoi(port); err != nil {
			return fmt.Errorf("%w: TCP: port %q is no number", ErrInvalidSpec, port)
		}
		c.tcpHost = host
		c.base = "http://llama-server.internal"
		c.args = append(c.args, "--host", host, "--port", port)
	} else {
		if c.path, c.cleanup, err = socketPath(c.dir); err != nil {
			return err
		}
		if short := filepath.Dir(c.path); short != c.dir {
			c.record.ShortDir = short
		}
		c.base = "http://llama-server.internal"
		c.args = append(c.args, "--host", c.path)
	}
	if err := c.record.write(c.dir); err != nil {
		return err
	}
	own := len(c.args)
	c.args = append(c.args, c.spec.Args...)
	if c.spec.Flags != nil {
		kept, notes := c.spec.Flags.Adapt(c.spec.Args)
		c.args, c.notes = append(c.args[:own:own], kept...), notes
		for _, n := range notes {
			c.spec.Log.Warn("argument changed for this llama-server", "note", n)
		}
	}
	extra := append(slices.Clone(c.spec.Env), withoutConfigFiles(c.dir)...)
	extra = append(extra,
		"LLAMA_API_KEY="+c.key, markerName+"="+c.record.Marker,
		// llama-server then tells its loading progress on stdout and ends when
		// its stdin does (server_child in tools/server/server-models.cpp).
		"LLAMA_SERVER_ROUTER_PORT=0")
	c.env, c.dropped = scrub(os.Environ(), extra)
	c.gate = &gate{child: c}
	c.client = &http.Client{Transport: c.gate}
	return nil
}

// dial connects to a process of this child, and to no other.
func (c *Child) dial(ctx context.Context, p *process) (net.Conn, error) {
	if c.path != "" {
		return dialUnix(ctx, c.path, p.pid)
	}
	return dialTCP(ctx, c.tcpHost, c.tcpPort, p.pid, &p.listens)
}

func (c *Child) removeDirs() {
	c.cleanup()
	removeRun(c.dir)
	if c.lock != nil {
		_ = c.lock.Close() // what it guarded is gone
	}
}

// Addr is where the child listens: the socket's path, or host:port.
func (c *Child) Addr() string {
	if c.path != "" {
		return c.path
	}
	port := c.tcpPort
	if pid := c.Pid(); port == 0 && pid != 0 {
		if found, err := listeners(pid); err == nil && len(found) > 0 {
			port = found[0].port
		}
	}
	return net.JoinHostPort(c.tcpHost, strconv.Itoa(port))
}

// BaseURL is what to put before a path for HTTPClient. Its host name is never
// looked up.
func (c *Child) BaseURL() string { return c.base }

// HTTPClient talks to the child. Requests wait while the child starts; the key
// is added; an error tells what became of the process (ExitError, HangError).
// A request is sent again only if its process died before any part of the
// answer and the policy starts another; when that one dies too, the error wraps
// ErrCrashedTwice.
func (c *Child) HTTPClient() *http.Client { return c.client }

// APIKey is the key that the child asks for.
func (c *Child) APIKey() string { return c.key }

// State is where the child is now.
func (c *Child) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Progress is how much of the model is loaded, 0 to 1, where the server tells.
func (c *Child) Progress() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.progress
}

// Pid is the running process, 0 when there is none.
func (c *Child) Pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cur == nil || c.cur.over() {
		return 0
	}
	return c.cur.pid
}

// Running is how many requests are being answered.
func (c *Child) ActiveRequests() int { return int(c.gate.running.Load()) }

// Subscribe gives the changes of state from now on. The channel is closed after
// the final one, or by calling the function.
func (c *Child) Subscribe() (<-chan Event, func()) { return c.hub.subscribe() }

// Done is closed when the child has ended for good and everything of it is
// gone: processes, socket, goroutines.
func (c *Child) Done() <-chan struct{} { return c.done }

// Err is why the child failed; nil while it lives and after a clean stop.
func (c *Child) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Log gives the last lines of the running process's output, or of the last one.
func (c *Child) LogTail() []string {
	c.mu.Lock()
	p := c.cur
	c.mu.Unlock()
	if p == nil {
		return nil
	}
	return p.tail.last()
}

// Stop lets running requests end (DrainTimeout), asks the process to end, then
// its group, and after StopTimeout kills all of it. When ctx ends, it kills at
// once. It returns when nothing is left; calling it again waits for the same.
func (c *Child) Stop(ctx context.Context) error {
	c.stopOnce.Do(func() { close(c.stop) })
	select {
	case <-c.done:
	case <-ctx.Done():
		c.killOnce.Do(func() { close(c.kill) })
		<-c.done
	}
	return nil
}

// Diagnose describes the child as it is.
func (c *Child) Diagnose() Diagnosis {
	env := slices.Clone(c.env)
	for i, kv := range env {
		if strings.HasPrefix(kv, "LLAMA_API_KEY=") {
			env[i] = "LLAMA_API_KEY=[key]"
		}
	}
	c.mu.Lock()
	state, attempt := c.state, c.attempt
	c.mu.Unlock()
	return Diagnosis{
		Argv: append(slices.Clone(c.spec.Argv), c.args...), Dir: c.spec.Dir, Env: env, RemovedEnv: c.dropped,
		FlagNotes: c.notes, State: state, Pid: c.Pid(), Attempt: attempt, Addr: c.Addr(), Log: c.LogTail(),
	}
}
