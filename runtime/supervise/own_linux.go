package supervise

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// outcome is how one run of the program ended.
type outcome struct {
	err     error // nil: it was stopped as asked
	stopped bool
	ready   bool          // it had been ready
	well    time.Duration // from then to the end, or to the stall that led to it
}

// own is the goroutine that owns the state from the first start to the end.
func (c *Child) own(first chan<- error) {
	defer close(c.done)
	defer c.hub.close()
	defer c.removeDirs()

	var failures int // in a row, see Policy
	var ready bool   // once at least
	tell := func(err error) {
		select {
		case first <- err:
		default:
		}
	}
	for {
		o := c.run(func() { tell(nil) })
		if o.stopped {
			c.change(Stopped, nil, "stopped")
			tell(ErrStopped)
			return
		}
		err := o.err
		ready = ready || o.ready
		if o.well >= c.spec.Restart.ResetAfter {
			failures = 0
		}
		failures++
		switch {
		case c.spec.Restart.Mode == Never || IsPermanent(err) || cleanExit(err):
		case !ready && errors.Is(err, ErrOutOfMemory): // the caller may ask for less
		case failures >= c.spec.Restart.MaxFailures:
			err = fmt.Errorf("%w: it failed %d times in a row, and was never well for %s in between: %w", ErrCrashLoop, failures, c.spec.Restart.ResetAfter, err)
		case c.pause(failures, err):
			continue
		default: // stopped while waiting
			c.change(Stopped, nil, "stopped")
			tell(ErrStopped)
			return
		}
		c.fail(err)
		tell(err)
		return
	}
}

// cleanExit reports whether the program ended with status 0 by itself.
func cleanExit(err error) bool {
	var e *ExitError
	return errors.As(err, &e) && e.Code == 0 && e.Signal == 0
}

// pause waits before the next start; false when Stop was called meanwhile.
func (c *Child) pause(n int, cause error) bool {
	wait := c.spec.Restart.backoff(n)
	c.change(Starting, cause, "starting again in "+wait.Round(time.Millisecond).String())
	ctx, cancel := c.untilStop()
	defer cancel()
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return false
	}
	if settle := c.spec.Restart.BeforeRestart; settle != nil {
		if err := settle(ctx); err != nil && ctx.Err() == nil {
			c.spec.Log.Warn("the gpu's memory did not settle", "cause", err.Error())
		}
	}
	return ctx.Err() == nil
}

// untilStop is a context that ends when Stop is called.
func (c *Child) untilStop() (context.Context, context.CancelFunc) {
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

// run starts the program once and stays with it until it is gone.
func (c *Child) run(ready func()) outcome {
	select {
	case <-c.stop:
		return outcome{stopped: true}
	default:
	}
	if c.path != "" {
		if err := removeStale(c.path); err != nil {
			return outcome{err: err}
		}
	}
	tail := newLogTail(c.spec.LogLines, []string{c.key}, c.spec.Log)
	defer tail.close()
	news := newNews(tail)
	p, err := c.launch(tail, news)
	if err != nil {
		return outcome{err: err}
	}
	o := c.startup(p, news)
	if o == nil {
		ready()
		o = c.serve(p, news)
	}
	<-p.exited
	c.bury(p, o.err)
	return *o
}

// launch starts the process and makes it the current one.
func (c *Child) launch(tail *logTail, news *news) (*process, error) {
	c.mu.Lock()
	c.attempt++
	attempt := c.attempt
	c.progress = 0
	c.mu.Unlock()
	p, err := spawn(append(append([]string{}, c.spec.Argv...), c.args...), c.env, c.spec.Dir, c.record.Marker, c.spec.ExtraFiles, tail)
	if err != nil {
		return nil, err
	}
	p.gen = attempt
	dial := func(ctx context.Context) (net.Conn, error) { return c.dial(ctx, p) }
	p.base, p.probe = newBase(dial), newBase(dial)
	news.speaks(p.speaks)
	c.record.Child, c.record.ChildStart = p.pid, p.start
	if err := c.record.write(c.dir); err != nil {
		c.spec.Log.Warn("could not record the child", "cause", err.Error())
	}
	c.mu.Lock()
	c.cur = p
	c.mu.Unlock()
	c.change(Starting, nil, "process started")
	return p, nil
}

// bury notes why a run ended, for those whose requests it broke.
func (c *Child) bury(p *process, err error) {
	p.base.CloseIdleConnections()
	p.probe.CloseIdleConnections()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		err = ErrStopped
	}
	c.deaths[p.gen] = err
	delete(c.deaths, p.gen-16) // nobody asks for one so old
	close(c.changed)
	c.changed = make(chan struct{})
}

// exitError describes a process that ended unasked.
func (c *Child) exitError(p *process, while State) error {
	e := &ExitError{
		Code: p.status.code, Signal: p.status.signal, CoreDumped: p.status.core,
		Pid: p.pid, State: while, Log: p.tail.last(),
	}
	recognise(e, p.oomStruck())
	if p.status.err != nil {
		return fmt.Errorf("%w (%w)", e, p.status.err)
	}
	return e
}

// change sets the state and tells everybody.
func (c *Child) change(to State, cause error, note string) {
	c.mu.Lock()
	e := Event{Time: time.Now(), From: c.state, To: to, Cause: cause, Note: note, Attempt: c.attempt, Progress: c.progress}
	if p := c.cur; p != nil && !p.over() {
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

// fail is change to Failed with its error kept.
func (c *Child) fail(err error) {
	c.mu.Lock()
	c.err = err
	c.mu.Unlock()
	c.change(Failed, err, "will not be started again")
}
