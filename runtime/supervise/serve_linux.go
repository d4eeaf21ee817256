package supervise

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// service is the time from ready to the end of a process.
type service struct {
	since time.Time
	stuck time.Time        // since when nothing moves; zero: it does
	grace <-chan time.Time // ends a stall by force
}

// over is how a service ended that nobody asked to end.
func (s *service) over(err error) *outcome {
	until := time.Now()
	if !s.stuck.IsZero() {
		until = s.stuck
	}
	return &outcome{err: err, ready: true, well: until.Sub(s.since)}
}

// serve is the time from ready to the end of the process.
func (c *Child) serve(p *process, n *news) *outcome {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	seen := make(chan observation)
	if c.spec.StallTimeout > 0 {
		go c.watch(ctx, p, n, seen)
	}
	s := service{since: p.ready}
	for {
		select {
		case <-p.exited:
			return s.over(c.exitError(p, c.State()))
		case <-c.stop:
			c.shutDown(p, true)
			return &outcome{stopped: true, ready: true}
		case o := <-seen:
			c.heed(&s, o)
		case <-s.grace:
			err := c.stuck(p)
			p.signal(unix.SIGKILL)
			<-p.exited
			return s.over(err)
		}
	}
}

// heed takes what the watcher tells.
func (c *Child) heed(s *service, o observation) {
	switch {
	case o.err != nil:
		c.spec.Log.Warn("stalls cannot be told for this server", "cause", o.err.Error())
		if !s.stuck.IsZero() { // nobody would take that back
			s.stuck, s.grace = time.Time{}, nil
			c.change(Ready, nil, "stalls cannot be told any more")
		}
	case o.stalled:
		s.stuck = time.Now().Add(-o.idle)
		c.change(Stalled, ErrStalled, "no token for "+o.idle.Round(time.Millisecond).String())
		if c.spec.StallGrace > 0 {
			s.grace = time.After(c.spec.StallGrace)
		}
	default:
		s.stuck, s.grace = time.Time{}, nil
		c.change(Ready, nil, "tokens move again")
	}
}

// stuck describes a process that stalled for longer than it may.
func (c *Child) stuck(p *process) *HangError {
	e := &HangError{
		Kind: ErrStalled, After: c.spec.StallTimeout + c.spec.StallGrace, State: Ready, Pid: p.pid,
		Remedy: remedyStall, Log: p.tail.last(),
	}
	if c.spec.CPUOnly {
		e.Remedy = remedyStallCPU
	}
	return e
}
