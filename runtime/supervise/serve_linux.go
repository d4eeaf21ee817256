package supervise

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

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
	lost := make(chan struct{})
	watchers.Go(func() { c.watchDevice(ctx, p, events, lost) })
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
		case <-lost:
			p.signal(unix.SIGKILL)
			<-p.exited
			return s.result(c.exitError(p, Ready))
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
	p.probeTransport.CloseIdleConnections() // llama-server waits for the threads that keep them, which look every 10 ms
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
