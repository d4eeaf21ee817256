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
//
// From now on, SIGHUP does not have its default effect, until raise: a terminal that
// closes may send it more than once, and a reload may come while a service stops. Either
// would end the program before it has stopped llama-server.
func onSIGHUP(terminal bool) (stops, reloads []os.Signal) {
	if signal.Ignored(syscall.SIGHUP) {
		return nil, nil
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	if terminal {
		return []os.Signal{syscall.SIGHUP}, nil
	}
	return nil, []os.Signal{syscall.SIGHUP}
}

const (
	// watchInterval is how often --watch-config looks at the file.
	watchInterval = time.Second / 2
	// reloadPause is the shortest time between two reloads that clients ask for.
	reloadPause = 2 * time.Second
	// reloadShare limits these reloads to a fifth of the time, where they take long:
	// the pause after one is reloadShare times as long as it was.
	reloadShare = 4
)

// reloader reads the settings again: after a signal, a change of the configuration
// file, or a request of a client, one at a time.
type reloader struct {
	seen     string               // version of the configuration file that was read last
	last     string               // the one at the last look
	version  func() string        // version of the watched file; empty: it is not watched
	apply    func()               // reads the settings again
	requests chan chan<- struct{} // of clients; each channel is closed after a reload
}

func newReloader(seen string, version func() string, apply func()) *reloader {
	return &reloader{seen: seen, last: seen, version: version, apply: apply, requests: make(chan chan<- struct{})}
}

// request waits for a reload that begins later. One reload serves all clients that
// wait, and begins after a pause since the last one, so that clients cannot make the
// service read its files all the time.
func (r *reloader) request(ctx context.Context) {
	done := make(chan struct{})
	select {
	case r.requests <- done:
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// run reloads after each of the signals, for request, and after each change of the
// watched file, until stop or the end of ctx. A file counts as changed when two looks
// in a row find the same: one that is half written may be valid, and have fewer models.
func (r *reloader) run(ctx context.Context, signals []os.Signal) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	received := make(chan os.Signal, 1)
	if len(signals) > 0 {
		signal.Notify(received, signals...)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.loop(ctx, received)
	}()
	return func() { signal.Stop(received); cancel(); <-done }
}

func (r *reloader) loop(ctx context.Context, received <-chan os.Signal) {
	look := time.NewTicker(watchInterval)
	defer look.Stop()
	var clients []chan<- struct{} // those that wait
	var due <-chan time.Time      // when their reload begins
	var free time.Time            // when the next one may begin
	for {
		select {
		case <-ctx.Done():
			return
		case client := <-r.requests:
			if clients = append(clients, client); due == nil {
				due = time.After(time.Until(free))
			}
			continue
		case <-due:
		case <-received:
		case <-look.C:
			version := r.version()
			rests := version == r.last
			r.last = version
			if version == "" || version == r.seen || !rests {
				continue
			}
			r.seen = version
		}
		started := time.Now()
		r.apply()
		free = time.Now().Add(max(reloadPause, reloadShare*time.Since(started)))
		for _, client := range clients {
			close(client)
		}
		clients, due = nil, nil
	}
}
