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

// noContext is for slog calls that belong to the child and to no request.
var noContext = context.Background()

// Spec says what to run and how to look after it. The zero value of every field
// but Argv has a sound meaning.
type Spec struct {
	// Argv starts the program: a bundle's loader with its library path and
	// llama-server, or the path of a llama-server alone.
	Argv []string
	// Args follow Argv. The listening address and the key are added by Start
	// and must not be among them, nor may a prefix of the paths or TLS.
	Args []string
	// Env is added, as NAME=value, after scrubbing; it wins over what is there.
	Env []string
	// Dir is the working directory; empty means the folder of the last element
	// of Argv. ggml loads modules from the working directory, so it must never
	// be one that others may write to.
	Dir string
	// ExtraFiles are files that the child has open too, from descriptor 3 on, such
	// as the lock that keeps its bundle. They must stay open while the child may
	// be started again.
	ExtraFiles []*os.File
	// SocketDir is the folder under which sockets and the records of live
	// children lie. It is made; one that is there must be this user's alone (mode
	// 0700). Empty means go-rocm in $XDG_RUNTIME_DIR if that is not another
	// user's, else run in $GOROCM_CACHE, else go-rocm/run in the user's cache
	// folder.
	SocketDir string
	// TCP is a host:port to listen on instead of a unix socket. Port 0 lets the
	// kernel choose. The listening socket is proven to be the child's.
	TCPAddr string

	// ModelBytes is the size of the model on disk; it scales StartTimeout's
	// default.
	ModelBytes int64
	// StartTimeout is how long a start may take without any sign of progress
	// (a log line, load progress); ten times as long it may take in all.
	// Default: one minute and a second for every 32 MiB of ModelBytes.
	StartTimeout time.Duration
	// DrainTimeout is how long Stop waits for running requests; default 5 s.
	// Negative: not at all.
	DrainTimeout time.Duration
	// StopTimeout is how long the child gets from the first request to end
	// until SIGKILL; default DefaultStopTimeout.
	StopTimeout time.Duration
	// StallTimeout is how long requests may run without a token, and with
	// CPUOnly without work, before the child counts as stalled; default 2 minutes; negative: never.
	StallTimeout time.Duration
	// CPUOnly says that the program computes on the CPU alone. CPU time that it uses
	// then counts as progress: prompts are decoded in batches of 2048 tokens
	// (n_batch in common/common.h), for one of which a slow CPU takes minutes
	// without any token moving. A GPU that hangs may keep the CPU busy, too.
	CPUOnly bool
	// StallGrace is how long a stalled child may stay so before it is killed,
	// with ErrStalled as the cause; default StallTimeout; negative: never.
	StallGrace time.Duration

	// Restart says whether and how a dead child is started again.
	Restart RestartPolicy
	// Flags, when set, drops or renames arguments that the program does not
	// know; ProbeFlags makes it.
	Flags *Flags
	// LogLines bounds the lines of the child's output that are kept; default 400.
	LogLines int
	// OnEvent is called with each event from the goroutine that owns the state;
	// it must not block. Start has begun by then, so nothing is missed.
	OnEvent func(Event)
	// Log takes state changes and, at debug level, the child's output; nil: none.
	Log *slog.Logger
}

// DefaultStopTimeout is the StopTimeout of a Spec that says none.
const DefaultStopTimeout = 10 * time.Second

// Mode says when a child that ended by itself is started again.
type RestartMode uint8

// The modes of a Policy.
const (
	// Never leaves a dead child dead: the library's default.
	Never RestartMode = iota
	// OnFailure starts it again unless it ended with status 0, or the cause is
	// one that starting again cannot cure: those of Permanent, and before it was
	// ready for the first time a lack of memory, which ends Start at once with
	// ErrOutOfMemory, so that the caller can ask for less.
	OnFailure
)

// Policy bounds how a child is started again.
//
// Failures count in a row, however far apart they are: a start that hangs may
// take longer to fail than any window of time. A run that was well for Window
// ends the row, and its own end is the first failure of the next. It is well from
// ready to its death, or to the beginning of the stall that it did not come out
// of, whether anybody used it or not.
type RestartPolicy struct {
	Mode RestartMode
	// MinBackoff and MaxBackoff bound the wait before a start, which doubles
	// with each failure in a row and is jittered by a quarter; defaults 500 ms
	// and 1 min.
	MinBackoff, MaxBackoff time.Duration
	// MaxFailures failures in a row end it with ErrCrashLoop; default 5.
	MaxFailures int
	// Window is how long a run must be well to end the row; default 10 min.
	ResetAfter time.Duration
	// Settle is called before each new start, to wait until the GPU's memory
	// has been given back; its error is noted and does not prevent the start.
	BeforeRestart func(ctx context.Context) error
}

// RestartOnFailure is the policy for services.
func RestartOnFailure() RestartPolicy { return RestartPolicy{Mode: OnFailure} }

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

// backoff is the wait before the start that follows the n-th failure, n from 1.
func (p RestartPolicy) backoff(n int) time.Duration {
	d := p.MinBackoff
	for i := 1; i < n && d < p.MaxBackoff; i++ {
		d *= 2
	}
	d = min(d, p.MaxBackoff)
	return d - d/8 + rand.N(d/4+1) //nolint:gosec // jitter, not a secret
}

// ErrInvalidSpec is wrapped by every complaint about a Spec.
var ErrInvalidSpec = errors.New("supervise: bad spec")

func (s Spec) withDefaults() (Spec, error) {
	if len(s.Argv) == 0 || s.Argv[0] == "" {
		return s, fmt.Errorf("%w: Argv is empty; give the program to run", ErrInvalidSpec)
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
	if err := checkArgs(s.Args, s.Env); err != nil {
		return s, err
	}
	if s.TCPAddr != "" {
		if _, _, err := net.SplitHostPort(s.TCPAddr); err != nil {
			return s, fmt.Errorf("%w: TCP: %w; write host:port", ErrInvalidSpec, err)
		}
	}
	if s.Dir == "" {
		s.Dir = filepath.Dir(s.Argv[len(s.Argv)-1])
	}
	if s.StartTimeout <= 0 {
		s.StartTimeout = time.Minute + time.Duration(s.ModelBytes>>25)*time.Second
	}
	s.DrainTimeout = defaulted(s.DrainTimeout, 5*time.Second)
	s.StopTimeout = defaulted(s.StopTimeout, DefaultStopTimeout)
	s.StallTimeout = defaulted(s.StallTimeout, 2*time.Minute)
	s.StallGrace = defaulted(s.StallGrace, s.StallTimeout)
	if s.LogLines <= 0 {
		s.LogLines = 400
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	s.Restart = s.Restart.withDefaults()
	return s, nil
}

// reserved are the flags of llama-server (common/arg.cpp) that say where and how it
// answers, with what to do instead. None has another spelling; each can be given
// by a variable, LLAMA_ARG_ and its name, as well.
func reserved() map[string]string {
	const (
		address = "use TCP to listen on an address of your own"
		key     = "Child.APIKey tells the key"
		plain   = "the child is asked over plain HTTP at its root; put a proxy in front of it"
	)
	return map[string]string{
		"--host": address, "--port": address, "--reuse-port": address,
		"--api-key": key, "--api-key-file": key,
		"--api-prefix": plain, "--ssl-key-file": plain, "--ssl-cert-file": plain,
	}
}

// checkArgs refuses what the supervisor itself decides on.
func checkArgs(args, env []string) error {
	flags := reserved()
	for _, a := range args {
		name, _, _ := strings.Cut(a, "=")
		if remedy, ok := flags[dashed(name)]; ok {
			return fmt.Errorf("%w: %s is chosen by the supervisor; %s", ErrInvalidSpec, name, remedy)
		}
	}
	for _, kv := range env {
		name, _, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return fmt.Errorf("%w: %q in Env is not NAME=value", ErrInvalidSpec, kv)
		}
		flag, ok := strings.CutPrefix(name, "LLAMA_ARG_")
		if remedy, reserved := flags["--"+strings.ToLower(strings.ReplaceAll(flag, "_", "-"))]; ok && reserved {
			return fmt.Errorf("%w: %s in Env is chosen by the supervisor; %s", ErrInvalidSpec, name, remedy)
		}
	}
	return nil
}

func defaulted(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}
