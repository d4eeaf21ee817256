package supervise

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
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
//     status 0: Failed.
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
		case c.spec.Restart.Mode == Never || IsPermanent(err) || isCleanExit(err):
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

// serving is the time from Ready to the exit of a process.
type serving struct {
	readySince   time.Time
	stalledSince time.Time        // zero while tokens are produced
	killTimer    <-chan time.Time // kills a stalled process; nil while tokens are produced
	unanswered   bool             // a request waited and no slot computed when the stall began
}

// result returns how a run ended that nobody asked to stop.
func (s *serving) result(err error) *runResult {
	until := time.Now()
	if !s.stalledSince.IsZero() {
		until = s.stalledSince
	}
	return &runResult{err: err, ready: true, healthyFor: until.Sub(s.readySince)}
}

// serve supervises a ready process until it has exited.
func (c *Child) serve(p *process, events *startupEvents) *runResult {
	// The watchers end before the specification may be revised: they read it.
	var watchers sync.WaitGroup
	defer watchers.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	observations := make(chan observation)
	if c.spec.StallTimeout > 0 {
		watchers.Go(func() { c.watch(ctx, p, events, observations, c.spec.StallTimeout, c.spec.CPUOnly) })
	}
	grown := make(chan excess)
	if c.spec.LoadingMemory > 0 && c.spec.HostMemory != nil {
		watchers.Go(func() { c.watchMemory(ctx, p, grown) })
	}
	s := serving{readySince: p.readyAt}
	for {
		select {
		case <-p.exited:
			return s.result(c.exitError(p, c.State()))
		case <-c.stop:
			c.shutDown(p, true)
			return &runResult{stopped: true, ready: true}
		case o := <-observations:
			c.handleObservation(&s, o)
		case e := <-grown:
			c.killForMemory(p, e)
		case <-s.killTimer:
			err := c.stallError(p, s.unanswered)
			if s.unanswered {
				p.unanswered.reportHung(s.stalledSince)
			}
			p.signal(unix.SIGKILL)
			<-p.exited
			return s.result(err)
		}
	}
}

// handleObservation changes the state as the watcher observed.
func (c *Child) handleObservation(s *serving, o observation) {
	switch {
	case o.err != nil:
		c.spec.Log.Warn("stalls of this server cannot be detected", "cause", o.err.Error())
		if !s.stalledSince.IsZero() { // no later observation would end the stall
			s.stalledSince, s.killTimer = time.Time{}, nil
			c.setState(Ready, nil, "stalls can no longer be detected")
		}
	case o.stalled && o.alone && !s.stalledSince.IsZero():
		s.unanswered = true
		if c.spec.StallGrace > 0 {
			s.killTimer = time.After(0)
		}
	case o.stalled:
		s.stalledSince, s.unanswered = time.Now().Add(-o.idle), o.unanswered
		note := "no token for "
		switch {
		case o.beside:
			note = "beside the slots a request has computed for "
		case o.unanswered:
			note = "a request waits and no slot has computed for "
		}
		c.setState(Stalled, ErrStalled, note+o.idle.Round(time.Millisecond).String())
		switch {
		case c.spec.StallGrace > 0 && o.alone:
			s.killTimer = time.After(0)
		case c.spec.StallGrace > 0:
			s.killTimer = time.After(c.spec.StallGrace)
		}
	default:
		s.stalledSince, s.killTimer = time.Time{}, nil
		c.setState(Ready, nil, "tokens are produced again")
	}
}

// stallError describes a process that stayed stalled for StallGrace.
func (c *Child) stallError(p *process, unanswered bool) *HangError {
	e := &HangError{
		Kind: ErrStalled, After: c.spec.StallTimeout + c.spec.StallGrace, State: Ready, Pid: p.pid,
		Remedy: remedyStall, Log: p.tail.last(),
		Unanswered: unanswered,
	}
	switch {
	case unanswered:
		e.Remedy = remedyUnanswered
	case c.spec.CPUOnly:
		e.Remedy = remedyStallCPU
	}
	return e
}

// shutDown ends the process in steps: drain, the exit command, SIGTERM, SIGKILL.
func (c *Child) shutDown(p *process, drain bool) {
	c.setState(Stopping, nil, "asked to stop")
	if drain && c.spec.DrainTimeout > 0 {
		c.drain(p)
	}
	if !drain || !p.requestExit() {
		p.signal(unix.SIGTERM)
	}
	half := time.After(c.spec.StopTimeout / 2)
	limit := time.After(c.spec.StopTimeout)
	for {
		select {
		case <-p.exited:
			return
		case <-half:
			p.signal(unix.SIGTERM)
		case <-c.kill:
			p.signal(unix.SIGKILL)
			<-p.exited
			return
		case <-limit:
			c.spec.Log.Warn("llama-server did not exit in time and was killed", "pid", p.pid, "after", c.spec.StopTimeout.String())
			p.signal(unix.SIGKILL)
			<-p.exited
			return
		}
	}
}

// drain waits for running requests, at most DrainTimeout.
func (c *Child) drain(p *process) {
	limit := time.After(c.spec.DrainTimeout)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for c.transport.active.Load() > 0 {
		select {
		case <-limit:
			return
		case <-c.kill:
			return
		case <-p.exited:
			return
		case <-tick.C:
		}
	}
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
