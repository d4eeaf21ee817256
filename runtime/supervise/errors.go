package supervise

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// The causes of a failure, for errors.Is.
var (
	// ErrOutOfMemory: the GPU or the host has too little memory.
	ErrOutOfMemory = errors.New("out of memory")
	// ErrHostMemory: the host has too little memory. It is an ErrOutOfMemory too.
	ErrHostMemory = fmt.Errorf("the host is %w", ErrOutOfMemory)
	// ErrGPUHang: the GPU stopped answering and was reset.
	ErrGPUHang = errors.New("gpu hang")
	// ErrGPUFault: a kernel on the GPU accessed memory outside its own.
	ErrGPUFault = errors.New("gpu memory fault")
	// ErrUnsupportedTarget: the program contains no code for this GPU.
	ErrUnsupportedTarget = errors.New("gpu target not supported by this build")
	// ErrModelInvalid: the model file is damaged, truncated, or of an unknown kind.
	ErrModelInvalid = errors.New("model cannot be loaded")
	// ErrLibraryMissing: the loader did not find a shared library or a symbol.
	ErrLibraryMissing = errors.New("shared library missing")
	// ErrPermission: the user may not open the GPU, or may not run the program.
	ErrPermission = errors.New("permission denied")
	// ErrNoDevice: the program was told to use a GPU and found none.
	ErrNoDevice = errors.New("llama-server does not find the gpu")
	// ErrBadArgument: the program rejected its command line.
	ErrBadArgument = errors.New("invalid argument")
	// ErrListen: the program could not listen on its address.
	ErrListen = errors.New("cannot listen")
	// ErrStalled: requests ran and no token was produced.
	ErrStalled = errors.New("stalled")
	// ErrStartTimeout: the start showed no sign of progress.
	ErrStartTimeout = errors.New("start timed out")
	// ErrWrongPeer: another process answers on the child's address.
	ErrWrongPeer = errors.New("the peer is not the supervised process")
	// ErrCrashed: the process crashed or hung while it handled this request and no
	// other, or two processes were killed one after the other before they answered it.
	// The request is the likely cause and is not sent to another process.
	ErrCrashed = errors.New("llama-server crashed while handling this request")
	// ErrCrashLoop: the child failed too often in a row, see RestartPolicy.
	ErrCrashLoop = errors.New("crash loop")
	// ErrStopped: the child was stopped and accepts no more requests.
	ErrStopped = errors.New("llama-server is stopped")
	// ErrUnsupportedPlatform: supervision needs Linux.
	ErrUnsupportedPlatform = errors.New("supervising llama-server needs linux")
)

// IsPermanent reports whether a restart cannot help against err.
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

// ExitError describes a process that exited without a request.
type ExitError struct {
	// Code is the exit status, -1 if a signal ended the process.
	Code int
	// Signal is the signal that ended the process, 0 if none did. CoreDumped reports
	// whether the process left a core file.
	Signal     syscall.Signal
	CoreDumped bool
	// Pid was the id of the process.
	Pid int
	// State is the state in which the process exited.
	State State
	// Kind is one of the package's causes, nil if none was found. Line is the log
	// line that identified it.
	Kind error
	Line string
	// Remedy is a sentence for the person who has to act.
	Remedy string
	// Log contains the last lines of output, oldest first.
	Log []string
}

// Error returns what happened, the cause, the remedy and the last lines.
func (e *ExitError) Error() string {
	var b strings.Builder
	b.WriteString("llama-server ")
	switch {
	case e.Signal != 0:
		fmt.Fprintf(&b, "was killed by %s", signalName(e.Signal))
	default:
		fmt.Fprintf(&b, "exited with status %d", e.Code)
	}
	fmt.Fprintf(&b, " while %s", e.State)
	writeCause(&b, e.Kind, e.Line, e.Remedy, e.Log)
	return b.String()
}

// Unwrap returns the cause.
func (e *ExitError) Unwrap() error { return e.Kind }

// HangError describes a process that runs and makes no progress.
type HangError struct {
	// Kind is ErrStartTimeout or ErrStalled.
	Kind error
	// After is how long there was no progress.
	After  time.Duration
	State  State
	Pid    int
	Remedy string
	Log    []string
}

// Error returns what happened, the remedy and the last lines.
func (e *HangError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "llama-server made no progress for %s while %s", e.After.Round(time.Millisecond), e.State)
	writeCause(&b, e.Kind, "", e.Remedy, e.Log)
	return b.String()
}

// Unwrap returns the cause.
func (e *HangError) Unwrap() error { return e.Kind }

// errorLogLines is how many lines the text of an error contains. The error's Log
// has them all.
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
