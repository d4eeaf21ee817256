// Package supervise runs one llama-server process for as long as a Go program
// needs it, and reports its real state: whether it is ready, why it exited, and
// whether it still produces tokens.
//
// A GPU server that outlives its parent keeps the GPU's memory. A server that
// answers /health may have stopped decoding. A server on a TCP port may not be
// the one that was started. The package handles each of these:
//
//   - The child is started from a thread that stays locked for the child's whole
//     life, with PR_SET_PDEATHSIG, in its own process group. Its standard input
//     is an open pipe; llama-server exits when that pipe closes.
//   - The child listens on a unix socket in a directory that only this user may
//     enter. SO_PEERCRED checks the peer of each connection.
//   - Variables that could change the child's behaviour are removed from its
//     environment.
//   - Readiness is read from /health. The child's own log lines trigger the checks.
//   - Liveness is judged by token progress in /slots, and only while requests run,
//     so that the check does not wake a sleeping server.
//   - Exits are diagnosed from real log lines and carry a remedy.
//
// # States
//
// One goroutine owns the state. Every change goes to slog and to subscribers.
//
//	Starting  the process runs and its socket does not answer yet
//	Loading   the socket answers 503: the model is being loaded
//	Ready     /health answered 200: requests are forwarded
//	Stalled   requests run and no token was produced for StallTimeout
//	Stopping  Stop was called: drain, then increasingly forceful signals
//	Stopped   stopped on request (final)
//	Failed    exited, and the policy does not restart it (final)
//
//	Starting → Loading → Ready ⇄ Stalled
//	any state → Starting    the process exited and the policy restarts it
//	any state → Stopping → Stopped
//	any state → Failed
//
// # Where to read
//
// A start of a child runs through four files: child_linux.go (Start and the
// Child's methods), run_linux.go (the loop that owns the state),
// process_linux.go (one process, from fork to reaping) and startup_linux.go
// (from the fork to Ready).
//
// The package handles processes and sockets. It has no knowledge of bundles,
// models or the meaning of arguments, and uses no more of llama-server's HTTP API
// than /health and /slots.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// logContext is the context of slog calls that concern the child and no request.
var logContext = context.Background()

// Spec describes what to run and how to supervise it. Only Argv is required; the
// zero value of every other field selects its default.
type Spec struct {
	// Argv starts the program: a bundle's loader with its library path and
	// llama-server, or the path of llama-server alone.
	Argv []string
	// Args follow Argv. Start adds the listening address and the API key; Args must
	// not contain them, and neither a path prefix nor TLS files.
	Args []string
	// Env holds NAME=value entries that are added to the child's environment. They
	// override inherited variables.
	Env []string
	// Dir is the working directory. Empty means the directory of the last element
	// of Argv. ggml loads modules from the working directory, so nobody else may be
	// able to write to it.
	Dir string
	// ExtraFiles are open files that the child inherits, from descriptor 3 on, such
	// as the lock on its bundle. They must stay open for as long as the child may be
	// restarted.
	ExtraFiles []*os.File
	// SocketDir is the directory for sockets and for the records of running
	// children. Start creates it; an existing one must be private to this user (mode
	// 0700). Empty means go-rocm in $XDG_RUNTIME_DIR unless that belongs to another
	// user, else run in the cache directory, which internal/userdirs finds for
	// bundles, too.
	SocketDir string
	// TCPAddr is a host:port to listen on instead of a unix socket. Port 0 lets the
	// kernel choose. Each connection checks that the child owns the listening socket.
	TCPAddr string

	// ModelBytes is the size of the model on disk. It scales the default of
	// StartTimeout.
	ModelBytes int64
	// StartTimeout limits the time that a start may take without a sign of progress
	// (a log line, load progress). The whole start may take ten times as long.
	// Default: one minute and a second for every 32 MiB of ModelBytes.
	StartTimeout time.Duration
	// LoadingMemory limits the memory in bytes that the program allocates until it is
	// ready, without the files that it maps; a program that exceeds it is killed.
	// llama-server runs a model's chat template while it loads, and a template may
	// allocate without end. Default: no limit.
	LoadingMemory int64
	// HostMemory returns the main memory in bytes that this program and the child may
	// use, and how much of it is available. A child that has allocated more than
	// LoadingMemory while it serves is killed with ErrHostMemory as the cause when a
	// thirty-second of the memory is left, between 256 MiB and 2 GiB: a chat template
	// may also allocate without end for the messages of one request, and the kernel
	// may otherwise kill another program first. Nil, or no LoadingMemory: no limit.
	HostMemory func() (usable, available uint64)
	// DrainTimeout limits how long Stop waits for running requests. Default: 5 s.
	// Negative: Stop does not wait.
	DrainTimeout time.Duration
	// StopTimeout is the time between the request to exit and SIGKILL. Default:
	// DefaultStopTimeout.
	StopTimeout time.Duration
	// StallTimeout limits how long requests may run without progress before the child
	// counts as stalled: without a token, and with CPUOnly without a decode that uses
	// CPU time. Default: 2 minutes. Negative: never.
	StallTimeout time.Duration
	// CPUOnly is set for a program that computes on the CPU alone. CPU time then counts
	// as progress while /slots answers: prompts are decoded in batches of 2048 tokens
	// (n_batch in common/common.h), and a slow CPU needs minutes for one batch,
	// during which no token counter moves. A sampler that computes without end blocks
	// /slots, and its CPU time does not count. With a GPU, CPU time proves nothing: a
	// GPU that hangs may keep the CPU busy.
	CPUOnly bool
	// StallGrace is how long a child may stay stalled before it is killed with
	// ErrStalled as the cause. Default: StallTimeout. Negative: never.
	StallGrace time.Duration

	// Restart decides whether and how an exited child is restarted.
	Restart RestartPolicy
	// Flags, when set, drops or renames arguments that the program does not accept.
	// ProbeFlags returns it.
	Flags *Flags
	// LogLines limits how many lines of the child's output are kept. Default: 400.
	LogLines int
	// OnEvent is called with each event, from the goroutine that owns the state. It
	// must not block. Unlike a subscriber it also sees the events of the start.
	OnEvent func(Event)
	// Log receives state changes and, at debug level, the child's output. Nil
	// discards both.
	Log *slog.Logger

	// abandonedAfter is how long a request whose caller has left may keep its slot,
	// pauseInterval the shortest time between two pauses of the process that make it
	// free such slots. Defaults: 3 s and 10 s. Negative abandonedAfter: for ever.
	abandonedAfter, pauseInterval time.Duration
}

// String describes the program without its environment, which may contain secrets.
func (s Spec) String() string { return fmt.Sprintf("%q with arguments %q", s.Argv, s.Args) }

// GoString is String, so that %#v shows no more.
func (s Spec) GoString() string { return s.String() }

// LogValue implements slog.LogValuer, without the environment.
func (s Spec) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("argv", s.Argv), slog.Any("args", s.Args), slog.Int("env", len(s.Env)))
}

// DefaultStopTimeout is the default of Spec.StopTimeout.
const DefaultStopTimeout = 10 * time.Second

// RestartMode selects when a child that exited by itself is restarted.
type RestartMode uint8

// The modes of a RestartPolicy.
const (
	// Never does not restart the child. It is the library's default.
	Never RestartMode = iota
	// OnFailure restarts the child unless it exited with status 0 or a restart cannot
	// help: see IsPermanent. A lack of memory before the child was ready for the first
	// time ends Start at once with ErrOutOfMemory, so that the caller can reduce the
	// demand.
	OnFailure
)

// RestartPolicy limits how a child is restarted.
//
// Failures are counted in a row, however far apart they are: a start that hangs
// may take longer to fail than any window of time. A run that was healthy for
// ResetAfter ends the row, and its own exit is the first failure of the next row.
// A run is healthy from Ready to its exit, or to the beginning of the stall that
// it did not recover from, whether or not it served requests.
type RestartPolicy struct {
	Mode RestartMode
	// MinBackoff and MaxBackoff limit the wait before a restart. The wait doubles
	// with each failure in a row, with a jitter of a quarter. Defaults: 500 ms and
	// 1 min.
	MinBackoff, MaxBackoff time.Duration
	// MaxFailures is how many failures in a row end the child with ErrCrashLoop.
	// Default: 5.
	MaxFailures int
	// ResetAfter is how long a run must be healthy to end the row. Default: 10 min.
	ResetAfter time.Duration
	// IgnoreRequestFailures excludes from the row the failures of a process that had
	// received requests, other than those that only read (GET and HEAD): it is restarted
	// however often that happens, so that no client can end the service. The wait before
	// such a restart is at most ten seconds.
	IgnoreRequestFailures bool
	// BeforeRestart is called before each restart, for example to wait until the
	// driver has freed the GPU's memory. Its error is logged and does not prevent the
	// restart.
	BeforeRestart func(ctx context.Context) error
	// Revise is called before each restart, after BeforeRestart, with the cause of the
	// exit. If it returns a Spec, the Argv, Args, Env, Dir, CPUOnly, StallTimeout and
	// LoadingMemory of that replace the child's, and an earlier row of failures ends.
	// Its Argv is absolute.
	Revise func(ctx context.Context, cause error) *Spec
}

// RestartOnFailure returns the policy for services.
func RestartOnFailure() RestartPolicy {
	return RestartPolicy{Mode: OnFailure, IgnoreRequestFailures: true}
}

func (p RestartPolicy) withDefaults() RestartPolicy {
	if p.MinBackoff <= 0 {
		p.MinBackoff = 500 * time.Millisecond
	}
	if p.MaxBackoff < p.MinBackoff {
		p.MaxBackoff = max(time.Minute, p.MinBackoff)
	}
	if p.MaxFailures <= 0 {
		p.MaxFailures = 5
	}
	if p.ResetAfter <= 0 {
		p.ResetAfter = 10 * time.Minute
	}
	return p
}

// backoff returns the wait before the start that follows the n-th failure, n from 1.
func (p RestartPolicy) backoff(n int) time.Duration {
	d := p.MinBackoff
	for i := 1; i < n && d < p.MaxBackoff; i++ {
		d *= 2
	}
	d = min(d, p.MaxBackoff)
	return d - d/8 + rand.N(d/4+1) //nolint:gosec // jitter, not a secret
}

// ErrInvalidSpec is wrapped by every error about a Spec.
var ErrInvalidSpec = errors.New("supervise: invalid spec")

func (s Spec) withDefaults() (Spec, error) {
	if len(s.Argv) == 0 || s.Argv[0] == "" {
		return s, fmt.Errorf("%w: Argv is empty; set it to the program to run", ErrInvalidSpec)
	}
	if !filepath.IsAbs(s.Argv[0]) {
		found, err := exec.LookPath(s.Argv[0])
		if err == nil {
			found, err = filepath.Abs(found)
		}
		if err != nil {
			return s, fmt.Errorf("%w: Argv: %w", ErrInvalidSpec, err)
		}
		s.Argv = append([]string{found}, s.Argv[1:]...)
	}
	if err := errors.Join(CheckArgs(s.Args), checkEnv(s.Env)); err != nil {
		return s, err
	}
	if s.TCPAddr != "" {
		host, _, err := net.SplitHostPort(s.TCPAddr)
		if err == nil && strings.Contains(host, ",") { // llama-server would listen on each
			err = errors.New("it has several hosts")
		}
		if err != nil {
			return s, fmt.Errorf("%w: TCPAddr: %w; want host:port", ErrInvalidSpec, err)
		}
	}
	if s.Dir == "" {
		s.Dir = filepath.Dir(s.Argv[len(s.Argv)-1])
	}
	if s.StartTimeout <= 0 {
		s.StartTimeout = time.Minute + time.Duration(s.ModelBytes>>25)*time.Second
	}
	s.DrainTimeout = durationOr(s.DrainTimeout, 5*time.Second)
	s.StopTimeout = durationOr(s.StopTimeout, DefaultStopTimeout)
	s.StallTimeout = durationOr(s.StallTimeout, 2*time.Minute)
	s.StallGrace = durationOr(s.StallGrace, s.StallTimeout)
	s.abandonedAfter = durationOr(s.abandonedAfter, 3*time.Second)
	s.pauseInterval = durationOr(s.pauseInterval, 10*time.Second)
	if s.LogLines <= 0 {
		s.LogLines = 400
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	s.Restart = s.Restart.withDefaults()
	return s, nil
}

// reservedFlags maps the flags of llama-server (common/arg.cpp) that decide where
// and how it answers to the remedy for a caller who set one. None has another
// spelling. Each can also be set by a variable: LLAMA_ARG_ and its name.
func reservedFlags() map[string]string {
	const (
		address = "set Spec.TCPAddr to choose an address"
		key     = "Child.APIKey returns the key"
		plain   = "the supervisor speaks plain HTTP at the root; put a proxy in front of it"
	)
	return map[string]string{
		"--host": address, "--port": address, "--reuse-port": address,
		"--api-key": key, "--api-key-file": key,
		"--api-prefix": plain, "--ssl-key-file": plain, "--ssl-cert-file": plain,
	}
}

// CheckArgs rejects arguments that the supervisor sets itself. Its error wraps
// [ErrInvalidSpec].
func CheckArgs(args []string) error {
	flags := reservedFlags()
	for _, a := range args {
		name, _, _ := strings.Cut(a, "=")
		if remedy, ok := flags[withDashes(name)]; ok {
			return fmt.Errorf("%w: %s is set by the supervisor; %s", ErrInvalidSpec, name, remedy)
		}
	}
	return nil
}

// checkEnv rejects variables that the supervisor sets itself.
func checkEnv(env []string) error {
	flags := reservedFlags()
	for _, kv := range env {
		name, _, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return fmt.Errorf("%w: %q in Env is not NAME=value", ErrInvalidSpec, kv)
		}
		flag, ok := strings.CutPrefix(name, "LLAMA_ARG_")
		if remedy, reserved := flags["--"+strings.ToLower(strings.ReplaceAll(flag, "_", "-"))]; ok && reserved {
			return fmt.Errorf("%w: %s in Env is set by the supervisor; %s", ErrInvalidSpec, name, remedy)
		}
	}
	return nil
}

// Work describes what a request to a Child makes llama-server do.
type Work struct {
	// Answers is how many answers the request asks for at once, such as one with
	// several prompts or several choices. Each has a slot of its own. 0 means 1.
	Answers int64
	// Judged says that the process counts as stalled when the request computes outside
	// the slots for StallTimeout, although there was a slot for it: a chat template may
	// loop without end for the messages of a request. It is for requests that compute in
	// any Answers slots from their beginning to their end, or in none, see NoSlot.
	Judged bool
	// NoSlot says that the request needs no slot.
	NoSlot bool
	// Hung, if not nil, is called when the process is killed because such a request does
	// not end, and its caller has left.
	Hung func()
}

// workKey is the key of a context's value: the Work of its request.
type workKey struct{}

// WithWork returns a context for a request to a Child. A request without it asks for
// one answer, and is not judged.
func WithWork(ctx context.Context, w Work) context.Context {
	return context.WithValue(ctx, workKey{}, w)
}

// workOf returns the work of the request of a context.
func workOf(ctx context.Context) Work {
	w, _ := ctx.Value(workKey{}).(Work)
	w.Answers = max(w.Answers, 1)
	return w
}

func durationOr(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}
