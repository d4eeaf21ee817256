package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// errNotListening means that the child does not listen yet.
var errNotListening = errors.New("not listening yet")

// Child is a supervised llama-server. Its address and API key stay the same when
// the policy restarts it. Its methods may be called from any goroutine.
type Child struct {
	spec    Spec
	key     string
	dir     string // private directory of the record and, normally, of the socket
	socket  string // the socket's path, empty for TCP
	tcpHost string
	tcpPort int
	baseURL string
	record  record
	lock    *os.File // on dir, nil if the file system has no locks
	cleanup func()

	args       []string // of the program, after Spec.Argv; the first own are the address
	own        int
	flagNotes  []string // what Flags changed
	environ    []string
	removedEnv []string

	hub       *hub
	transport *retryTransport
	client    *http.Client

	mu       sync.Mutex
	state    State
	progress float64
	current  *process
	attempt  int
	err      error
	exits    map[int]exitRecord // by run
	changed  chan struct{}

	stop     chan struct{} // closed to request the stop
	stopOnce sync.Once
	kill     chan struct{} // closed to kill without further waiting
	killOnce sync.Once
	done     chan struct{}
}

// Start starts the program and returns when it is ready to answer. When ctx ends
// before that, Start kills the program and returns. After Start has returned, ctx
// no longer affects the child, which runs until Stop, the end of this process, or
// its own exit.
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
		spec.Log.Warn("could not search for orphans", "cause", err.Error())
	}
	c := &Child{
		spec: spec, key: newID(24), cleanup: func() {}, hub: newHub(spec.Log), exits: map[int]exitRecord{},
		changed: make(chan struct{}), stop: make(chan struct{}), kill: make(chan struct{}), done: make(chan struct{}),
	}
	if err := c.prepare(); err != nil {
		c.removeDirs()
		return nil, err
	}
	first := make(chan error, 1)
	go c.loop(first)
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

// prepare creates the private directory and the record, and chooses the address,
// the arguments and the environment.
func (c *Child) prepare() error {
	c.dir = filepath.Join(c.spec.SocketDir, newRunName())
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return fmt.Errorf("create the socket directory: %w", err)
	}
	var err error
	if c.lock, err = lockNewRun(c.dir); err != nil {
		return err
	}
	if c.record, err = newRecord(); err != nil {
		return err
	}
	if c.spec.TCPAddr != "" {
		host, port, _ := net.SplitHostPort(c.spec.TCPAddr)
		if c.tcpPort, err = strconv.Atoi(port); err != nil {
			return fmt.Errorf("%w: TCPAddr: port %q is not a number", ErrInvalidSpec, port)
		}
		c.tcpHost = host
		c.baseURL = "http://llama-server.internal"
		c.args = append(c.args, "--host", host, "--port", port)
	} else {
		if c.socket, c.cleanup, err = socketPath(c.dir); err != nil {
			return err
		}
		if short := filepath.Dir(c.socket); short != c.dir {
			c.record.ShortDir = short
		}
		c.baseURL = "http://llama-server.internal"
		c.args = append(c.args, "--host", c.socket)
	}
	if err := c.record.write(c.dir); err != nil {
		return err
	}
	c.own = len(c.args)
	c.compose()
	c.transport = &retryTransport{child: c}
	c.client = &http.Client{Transport: c.transport}
	return nil
}

// compose sets the arguments after the address, and the environment, from the Spec.
func (c *Child) compose() {
	args, notes := c.spec.Args, []string(nil)
	if c.spec.Flags != nil {
		args, notes = c.spec.Flags.Adapt(c.spec.Args)
		for _, n := range notes {
			c.spec.Log.Warn("argument changed for this llama-server", "note", n)
		}
	}
	extra := append(append([]string{noBacktrace}, c.spec.Env...), configFileEnv(c.dir)...)
	extra = append(extra,
		"LLAMA_API_KEY="+c.key, markerName+"="+c.record.Marker,
		// With this variable llama-server reports its load progress on stdout and exits
		// when its stdin closes (server_child in tools/server/server-models.cpp).
		"LLAMA_SERVER_ROUTER_PORT=0")
	environ, removed := childEnv(os.Environ(), extra)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.args, c.flagNotes = append(c.args[:c.own:c.own], args...), notes
	c.environ, c.removedEnv = environ, removed
}

// revise replaces what to run by what the policy says; revised is false if it stays.
func (c *Child) revise(ctx context.Context, cause error) (revised bool) {
	if c.spec.Restart.Revise == nil {
		return false
	}
	next := c.spec.Restart.Revise(ctx, cause)
	if next == nil {
		return false
	}
	changed, err := next.withDefaults()
	if err != nil {
		c.spec.Log.Warn("the revision of what to run is not used", "cause", err.Error())
		return false
	}
	c.mu.Lock()
	c.spec.Argv, c.spec.Args, c.spec.Env, c.spec.Dir = changed.Argv, changed.Args, changed.Env, changed.Dir
	c.spec.CPUOnly, c.spec.StallTimeout, c.spec.StallGrace, c.spec.LoadingMemory = changed.CPUOnly, changed.StallTimeout, changed.StallGrace, changed.LoadingMemory
	c.mu.Unlock()
	c.compose()
	return true
}

// dial connects to the given process of this child, and to no other.
func (c *Child) dial(ctx context.Context, p *process) (net.Conn, error) {
	if c.socket != "" {
		return dialUnix(ctx, c.socket, p.pid)
	}
	return dialTCP(ctx, c.tcpHost, c.tcpPort, p.pid, &p.listener)
}

func (c *Child) removeDirs() {
	c.cleanup()
	removeRunDir(c.dir)
	if c.lock != nil {
		_ = c.lock.Close() // the directory that it protected is gone
	}
}

// Addr returns the address on which the child listens: the socket's path, or
// host:port.
func (c *Child) Addr() string {
	if c.socket != "" {
		return c.socket
	}
	port := c.tcpPort
	if pid := c.Pid(); port == 0 && pid != 0 {
		if found, err := findListeners(pid); err == nil && len(found) > 0 {
			port = found[0].port
		}
	}
	return net.JoinHostPort(c.tcpHost, strconv.Itoa(port))
}

// BaseURL returns the prefix of the URLs for HTTPClient. Its host name is never
// resolved.
func (c *Child) BaseURL() string { return c.baseURL }

// HTTPClient returns the client for requests to the child. Requests wait while
// the child starts, and the API key is added. An error wraps the cause of the exit
// (ExitError, HangError). A request is retried once, and only if its process was
// killed from outside before any part of the answer and the policy restarts it. If
// the process crashed or hung while it handled this request alone, the error also
// wraps ErrCrashed.
func (c *Child) HTTPClient() *http.Client { return c.client }

// String describes the child without its key and environment.
func (c *Child) String() string {
	return fmt.Sprintf("llama-server (%s, process %d, %s)", c.State(), c.Pid(), c.Addr())
}

// GoString is String, so that %#v shows no more.
func (c *Child) GoString() string { return c.String() }

// LogValue implements slog.LogValuer, without the key and the environment.
func (c *Child) LogValue() slog.Value {
	return slog.GroupValue(slog.String("state", c.State().String()), slog.Int("pid", c.Pid()), slog.String("addr", c.Addr()))
}

// APIKey returns the key that the child requires.
func (c *Child) APIKey() string { return c.key }

// State returns the current state.
func (c *Child) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Progress returns how much of the model is loaded, 0 to 1, if the server reports
// it.
func (c *Child) Progress() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.progress
}

// Pid returns the id of the running process, 0 if there is none.
func (c *Child) Pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil || c.current.hasExited() {
		return 0
	}
	return c.current.pid
}

// ActiveRequests returns how many requests are being answered.
func (c *Child) ActiveRequests() int { return int(c.transport.active.Load()) }

// Subscribe returns a channel of the changes of state from now on, and a function
// that ends the subscription. The channel is closed after the final change or when
// the subscription ends.
func (c *Child) Subscribe() (<-chan Event, func()) { return c.hub.subscribe() }

// Done returns a channel that is closed when the child has reached a final state
// and its processes, socket and goroutines are gone.
func (c *Child) Done() <-chan struct{} { return c.done }

// Err returns why the child failed; nil while it runs and after a clean stop.
func (c *Child) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// LogTail returns the last lines of output of the running process, or of the last
// one that ran.
func (c *Child) LogTail() []string {
	c.mu.Lock()
	p := c.current
	c.mu.Unlock()
	if p == nil {
		return nil
	}
	return p.tail.last()
}

// Stop waits for running requests (DrainTimeout), asks the process to exit, then
// sends SIGTERM to its group, and kills the group after StopTimeout. When ctx ends,
// it kills at once. It returns when nothing is left. A second call waits for the
// same end.
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

// Diagnose returns a description of the child's current process.
func (c *Child) Diagnose() Diagnosis {
	c.mu.Lock()
	d := Diagnosis{
		Argv: append(slices.Clone(c.spec.Argv), c.args...), Dir: c.spec.Dir, Env: slices.Clone(c.environ), RemovedEnv: c.removedEnv,
		FlagNotes: c.flagNotes, State: c.state, Attempt: c.attempt,
	}
	c.mu.Unlock()
	for i, kv := range d.Env {
		if strings.HasPrefix(kv, "LLAMA_API_KEY=") {
			d.Env[i] = "LLAMA_API_KEY=[key]"
		}
	}
	d.Pid, d.Addr, d.Log = c.Pid(), c.Addr(), c.LogTail()
	return d
}
