package supervise

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// The causes that a failure can have, for errors.Is.
var (
	// ErrOutOfMemory: the GPU's or the host's memory did not suffice.
	ErrOutOfMemory = errors.New("out of memory")
	// ErrHostMemory: it was the host's; it is an ErrOutOfMemory too.
	ErrHostMemory = fmt.Errorf("the host is %w", ErrOutOfMemory)
	// ErrGPUHang: the GPU stopped answering and was reset.
	ErrGPUHang = errors.New("gpu hang")
	// ErrGPUFault: a kernel on the GPU touched memory that is not its own.
	ErrGPUFault = errors.New("gpu memory fault")
	// ErrUnsupportedTarget: the program holds no code for this GPU.
	ErrUnsupportedTarget = errors.New("gpu target not supported by this build")
	// ErrModelInvalid: the model file is damaged, cut off, or of an unknown kind.
	ErrModelInvalid = errors.New("model cannot be loaded")
	// ErrLibraryMissing: the loader did not find a shared library or a symbol.
	ErrLibraryMissing = errors.New("shared library missing")
	// ErrPermission: the user may not open the GPU, or may not run the program.
	ErrPermission = errors.New("permission denied")
	// ErrNoDevice: the program was told to use a GPU and its GPU code found none.
	ErrNoDevice = errors.New("llama-server does not find the gpu")
	// ErrBadArgument: the program refused its command line.
	ErrBadArgument = errors.New("argument refused")
	// ErrListen: the program could not listen where it was told to.
	ErrListen = errors.New("cannot listen")
	// ErrStalled: requests ran and no token moved.
	ErrStalled = errors.New("stalled")
	// ErrStartTimeout: no sign of progress while starting.
	ErrStartTimeout = errors.New("start timed out")
	// ErrWrongPeer: another process answers on the child's address.
	ErrWrongPeer = errors.New("the peer is not the supervised process")
	// ErrCrashedTwice: two processes died, one after the other, before they answered
	// a request; it may be the cause, and is not sent to a third.
	ErrCrashedTwice = errors.New("llama-server died again at the same request")
	// ErrCrashLoop: it failed too often in a row, see Policy.
	ErrCrashLoop = errors.New("crash loop")
	// ErrStopped: the child was stopped and takes no more requests.
	ErrStopped = errors.New("llama-server is stopped")
	// ErrUnsupportedPlatform: supervision needs Linux.
	ErrUnsupportedPlatform = errors.New("supervising llama-server needs linux")
)

// Permanent reports whether starting again cannot cure err.
func IsPermanent(err error) bool {
	for _, kind := range []error{
		ErrModelInvalid, ErrLibraryMissing, ErrPermission, ErrBadArgument, ErrNoDevice,
		ErrUnsupportedTarget, ErrUnsupportedPlatform, ErrInvalidSpec,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// ExitError is a process that ended without being asked to.
type ExitError struct {
	// Code is the exit status, -1 where a signal ended it.
	Code int
	// Signal ended it, 0 where none did; Core says whether it left a core.
	Signal     syscall.Signal
	CoreDumped bool
	// Pid is the process that was.
	Pid int
	// While is the state in which it ended.
	State State
	// Kind is one of the package's causes, nil where none was recognised; Line
	// is the log line that told.
	Kind error
	Line string
	// Remedy is a sentence for the person who has to do something.
	Remedy string
	// Log holds the last lines of its output, oldest first.
	Log []string
}

// Error gives what happened, the cause, the remedy and the last lines.
func (e *ExitError) Error() string {
	var b strings.Builder
	b.WriteString("llama-server ")
	switch {
	case e.Signal != 0:
		fmt.Fprintf(&b, "was ended by %s", signalName(e.Signal))
	default:
		fmt.Fprintf(&b, "exited with status %d", e.Code)
	}
	fmt.Fprintf(&b, " while %s", e.State)
	writeCause(&b, e.Kind, e.Line, e.Remedy, e.Log)
	return b.String()
}

// Unwrap gives the cause.
func (e *ExitError) Unwrap() error { return e.Kind }

// HangError is a process that lives and makes no progress.
type HangError struct {
	// Kind is ErrStartTimeout or ErrStalled.
	Kind error
	// After is how long nothing moved.
	After  time.Duration
	State  State
	Pid    int
	Remedy string
	Log    []string
}

// Error gives what happened, the remedy and the last lines.
func (e *HangError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "llama-server made no progress for %s while %s", e.After.Round(time.Millisecond), e.State)
	writeCause(&b, e.Kind, "", e.Remedy, e.Log)
	return b.String()
}

// Unwrap gives the cause.
func (e *HangError) Unwrap() error { return e.Kind }

// errorLogLines is how many lines an error's text shows; the whole tail is in
// the error's Log.
const errorLogLines = 8

func writeCause(b *strings.Builder, kind error, line, remedy string, log []string) {
	if kind != nil {
		fmt.Fprintf(b, ": %s", kind)
	}
	if line != "" {
		fmt.Fprintf(b, " (%s)", line)
	}
	if remedy != "" {
		fmt.Fprintf(b, "; %s", remedy)
	}
	if n := len(log); n > 0 {
		fmt.Fprintf(b, "; its last lines:\n\t%s", strings.Join(log[max(0, n-errorLogLines):], "\n\t"))
	}
}

func signalName(s syscall.Signal) string {
	names := map[syscall.Signal]string{
		syscall.SIGABRT: "SIGABRT", syscall.SIGSEGV: "SIGSEGV", syscall.SIGKILL: "SIGKILL",
		syscall.SIGTERM: "SIGTERM", syscall.SIGBUS: "SIGBUS", syscall.SIGILL: "SIGILL",
		syscall.SIGFPE: "SIGFPE", syscall.SIGINT: "SIGINT", syscall.SIGHUP: "SIGHUP", syscall.SIGPIPE: "SIGPIPE",
	}
	if n, ok := names[s]; ok {
		return n
	}
	return fmt.Sprintf("signal %d", int(s))
}
