package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// signalError is the cancellation cause of a context that a signal canceled.
type signalError struct{ signal syscall.Signal }

// Error implements error.
func (e *signalError) Error() string { return "terminated by signal: " + e.signal.String() }

// contextWithSignal returns a context that the first of the signals cancels, with
// a *signalError as its cause. A second signal has its default effect.
func contextWithSignal(parent context.Context, signals ...os.Signal) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	received := make(chan os.Signal, 1)
	signal.Notify(received, signals...)
	go func() {
		select {
		case s := <-received:
			if number, ok := s.(syscall.Signal); ok {
				cancel(&signalError{number})
			}
		case <-ctx.Done():
		}
		signal.Stop(received)
	}()
	return ctx, func() { signal.Stop(received); cancel(nil) }
}

// withoutSIGPIPE makes a write to a closed pipe fail with EPIPE. By default
// SIGPIPE would end the program before it has stopped llama-server.
func withoutSIGPIPE() (stop func()) {
	received := make(chan os.Signal, 1)
	signal.Notify(received, syscall.SIGPIPE)
	return func() { signal.Stop(received) }
}

// signalCause returns the *signalError that canceled ctx, or nil.
func signalCause(ctx context.Context) error {
	var e *signalError
	if errors.As(context.Cause(ctx), &e) {
		return e
	}
	return nil
}

// raise ends the program with the signal's default effect: only then does the
// shell that runs it in a loop leave that loop.
func (e *signalError) raise() int {
	signal.Reset(e.signal)
	if self, err := os.FindProcess(os.Getpid()); err == nil && self.Signal(e.signal) == nil {
		time.Sleep(time.Second) // the signal arrives in the meantime
	}
	return 128 + int(e.signal)
}

// hasTerminal reports whether the process has a controlling terminal, whose end
// SIGHUP would announce, whatever input and output are redirected to.
func hasTerminal() bool {
	f, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// onSIGHUP returns what SIGHUP does, as the signals that stop the program and the
// signals that make a service reload its files: a terminal that closes stops the
// program, a service reloads. A program started with SIGHUP ignored, as nohup
// does, keeps ignoring it.
func onSIGHUP(terminal bool) (stops, reloads []os.Signal) {
	switch {
	case signal.Ignored(syscall.SIGHUP):
		return nil, nil
	case terminal:
		return []os.Signal{syscall.SIGHUP}, nil
	}
	return nil, []os.Signal{syscall.SIGHUP}
}
