package supervise

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// runResult is how one run of the program ended.
type runResult struct {
	err        error // nil: stopped on request
	stopped    bool
	ready      bool          // the run had reached Ready
	healthyFor time.Duration // from Ready to the exit, or to the stall that led to it
	requests   bool          // the run had received requests that do more than read
}

// maxRequestBackoff limits the wait before a restart after a failure that requests
// may have caused: other clients wait for that restart.
const maxRequestBackoff = 10 * time.Second

// loop owns the child's state from the first start to the final state. It sends
// the result of the first start to first.
//
// After each run it decides in this order:
//
//  1. Stop was called: Stopped.
//  2. The policy is Never, a restart cannot help, or the program exited with
//     status 0: Failed. That a restart cannot help is read from the log, where a
//     request may have written it: the next run shows it without a request.
//  3. The first start lacked memory: Failed, so that the caller can ask for less.
//  4. The run had received requests and the policy ignores that: wait, run again.
//  5. MaxFailures in a row: Failed with ErrCrashLoop.
//  6. Otherwise: wait and run again.
func (c *Child) loop(first chan<- error) {
	defer close(c.done)
	defer c.hub.close()
	defer c.removeDirs()

	var failures, requestFailures int // in a row, see RestartPolicy
	var ready bool                    // reached at least once
	started := func(err error) {
		select {
		case first <- err:
		default:
		}
	}
	for {
		result := c.runOnce(func() { started(nil) })
		if result.stopped {
			c.setState(Stopped, nil, "stopped")
			started(ErrStopped)
			return
		}
		err := result.err
		ready = ready || result.ready
		if result.healthyFor >= c.spec.Restart.ResetAfter {
			failures, requestFailures = 0, 0
		}
		var wait time.Duration
		ignored := result.requests && c.spec.Restart.IgnoreRequestFailures
		if ignored {
			requestFailures++
			wait = min(c.spec.Restart.backoff(requestFailures), maxRequestBackoff)
		} else {
			failures++
			wait = c.spec.Restart.backoff(failures)
		}
		switch {
		case c.spec.Restart.Mode == Never || IsPermanent(err) && !ignored || isCleanExit(err):
		case !ready && errors.Is(err, ErrOutOfMemory):
		case !ignored && failures >= c.spec.Restart.MaxFailures:
			err = fmt.Errorf("%w: llama-server failed %d times in a row and was never healthy for %s in between: %w", ErrCrashLoop, failures, c.spec.Restart.ResetAfter, err)
		case c.waitRestart(wait, err):
			ctx, cancel := c.stopContext()
			if c.revise(ctx, err) {
				failures, requestFailures = 0, 0
			}
			cancel()
			continue
		default: // stopped during the wait
			c.setState(Stopped, nil, "stopped")
			started(ErrStopped)
			return
		}
		c.setFailed(err)
		started(err)
		return
	}
}

// isCleanExit reports whether the program exited with status 0 by itself.
func isCleanExit(err error) bool {
	var e *ExitError
	return errors.As(err, &e) && e.Code == 0 && e.Signal == 0
}

// waitRestart waits before a restart. It returns false if Stop was called meanwhile.
func (c *Child) waitRestart(wait time.Duration, cause error) bool {
	c.setState(Starting, cause, "restart in "+wait.Round(time.Millisecond).String())
	ctx, cancel := c.stopContext()
	defer cancel()
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return false
	}
	if before := c.spec.Restart.BeforeRestart; before != nil {
		if err := before(ctx); err != nil && ctx.Err() == nil {
			c.spec.Log.Warn("the step before the restart failed", "cause", err.Error())
		}
	}
	return ctx.Err() == nil
}

// stopContext returns a context that ends when Stop is called.
func (c *Child) stopContext() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		select {
		case <-c.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// runOnce starts the program once and returns after it has exited. It calls
// ready when the program is ready.
func (c *Child) runOnce(ready func()) runResult {
	select {
	case <-c.stop:
		return runResult{stopped: true}
	default:
	}
	if c.socket != "" {
		if err := removeStale(c.socket); err != nil {
			return runResult{err: err}
		}
	}
	tail := newLogTail(c.spec.LogLines, []string{c.key}, c.spec.Log)
	defer tail.close()
	events := newStartupEvents(tail)
	p, err := c.startProcess(tail, events)
	if err != nil {
		return runResult{err: err}
	}
	result := c.startup(p, events)
	if result == nil {
		ready()
		result = c.serve(p, events)
	}
	<-p.exited
	result.requests = p.load.suspects.Load() > 0
	c.recordExit(p, result.err)
	return *result
}

// startProcess starts a process and makes it the current one.
func (c *Child) startProcess(tail *logTail, events *startupEvents) (*process, error) {
	c.mu.Lock()
	c.attempt++
	attempt := c.attempt
	c.progress = 0
	c.mu.Unlock()
	p, err := spawn(append(append([]string{}, c.spec.Argv...), c.args...), c.environ, c.spec.Dir, c.record.Marker, c.spec.ExtraFiles, tail)
	if err != nil {
		return nil, err
	}
	p.run = attempt
	dial := func(ctx context.Context) (net.Conn, error) { return c.dial(ctx, p) }
	lingering := func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return &lingeringConn{Conn: conn}, nil
	}
	p.userTransport, p.probeTransport = newUserTransport(lingering), newTransport(dial)
	events.closeWhenReady(p.acceptsExit)
	c.record.Child, c.record.ChildStart = p.pid, p.startTime
	if err := c.record.write(c.dir); err != nil {
		c.spec.Log.Warn("could not record the child", "cause", err.Error())
	}
	c.mu.Lock()
	c.current = p
	c.mu.Unlock()
	c.setState(Starting, nil, "process started")
	return p, nil
}

// maxRecordedExits is how many exit causes are kept for requests that were in
// flight.
const maxRecordedExits = 16

// exitRecord is why a process exited, and how many requests that may have caused it
// were in flight.
type exitRecord struct {
	err     error
	running int
}

// isSuspect reports whether a request that was in flight may have caused the exit.
func (r exitRecord) isSuspect() bool { return IsSuspect(r.err) }

// recordExit stores the exit cause for requests that were in flight.
func (c *Child) recordExit(p *process, err error) {
	p.userTransport.CloseIdleConnections()
	p.probeTransport.CloseIdleConnections()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		err = ErrStopped
	}
	c.exits[p.run] = exitRecord{err: err, running: int(p.load.running.Load())}
	delete(c.exits, p.run-maxRecordedExits)
	close(c.changed)
	c.changed = make(chan struct{})
}

// exitError describes a process that exited without a request.
func (c *Child) exitError(p *process, state State) error {
	e := &ExitError{
		Code: p.status.code, Signal: p.status.signal, CoreDumped: p.status.core,
		Pid: p.pid, State: state, Log: p.tail.last(),
	}
	switch {
	case p.excess.serving:
		e.Kind, e.Remedy = ErrHostMemory, remedyGrowth
		e.Line = fmt.Sprintf("it had allocated %d MiB, and %d MiB were left", p.excess.allocated>>20, p.excess.left>>20)
	case p.excess.allocated > 0:
		e.Kind, e.Remedy = ErrMemoryLimit, remedyLimit
		e.Line = fmt.Sprintf("it had allocated %d MiB; the limit is %d MiB", p.excess.allocated>>20, c.spec.LoadingMemory>>20)
	default:
		diagnose(e, p.oomKilled())
	}
	if p.status.err != nil {
		return fmt.Errorf("%w (%w)", e, p.status.err)
	}
	return e
}

// setState changes the state and publishes the event.
func (c *Child) setState(to State, cause error, note string) {
	c.mu.Lock()
	e := Event{Time: time.Now(), From: c.state, To: to, Cause: cause, Note: note, Attempt: c.attempt, Progress: c.progress}
	if p := c.current; p != nil && !p.hasExited() {
		e.Pid = p.pid
	}
	c.state = to
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	c.hub.publish(e)
	if c.spec.OnEvent != nil {
		c.spec.OnEvent(e)
	}
}

// setFailed stores err for Child.Err and changes the state to Failed.
func (c *Child) setFailed(err error) {
	c.mu.Lock()
	c.err = err
	c.mu.Unlock()
	c.setState(Failed, err, "will not be restarted")
}
