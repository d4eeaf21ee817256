package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// signalError is the cause of what ended because a signal asked for it.
type signalError struct{ signal syscall.Signal }

// Error implements error.
func (e *signalError) Error() string { return "ended by a signal: " + e.signal.String() }

// contextWithSignal ends a context with the first of the signals as its cause.
func contextWithSignal(parent context.Context, signals ...os.Signal) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	came := make(chan os.Signal, 1)
	signal.Notify(came, signals...)
	go func() {
		select {
		case s := <-came:
			if number, ok := s.(syscall.Signal); ok {
				cancel(&signalError{number})
			}
		case <-ctx.Done():
		}
		signal.Stop(came) // a second one ends the program at once
	}()
	return ctx, func() { signal.Stop(came); cancel(nil) }
}

// withoutSIGPIPE lets writing to a pipe that nobody reads fail, instead of ending
// the program before it has ended llama-server.
func withoutSIGPIPE() (stop func()) {
	came := make(chan os.Signal, 1)
	signal.Notify(came, syscall.SIGPIPE)
	return func() { signal.Stop(came) }
}

// signalOf is the signal that ended ctx, nil where none did.
func signalOf(ctx context.Context) error {
	var e *signalError
	if errors.As(context.Cause(ctx), &e) {
		return e
	}
	return nil
}

// die ends the program as the signal would have done by itself: a shell in whose
// loop it runs ends that only then.
func (e *signalError) die() int {
	signal.Reset(e.signal)
	if self, err := os.FindProcess(os.Getpid()); err == nil && self.Signal(e.signal) == nil {
		time.Sleep(time.Second) // it comes at any moment
	}
	return 128 + int(e.signal)
}

// hasTerminal reports whether there is a terminal whose end would be told by
// SIGHUP, wherever input and output go.
func hasTerminal() bool {
	f, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// onSIGHUP says what SIGHUP does: it tells of the end of a terminal, and a service
// to read its files again. Who started us with it ignored, as nohup does, wants
// neither.
func onSIGHUP(terminal bool) (ends, reloads []os.Signal) {
	switch {
	case signal.Ignored(syscall.SIGHUP):
		return nil, nil
	case terminal:
		return []os.Signal{syscall.SIGHUP}, nil
	}
	return nil, []os.Signal{syscall.SIGHUP}
}
