package scheduler

import (
	"context"
	"sync"
	"time"
)

type answer struct {
	model string
	err   error
}

// Lease keeps a model loaded.
type Lease struct {
	model   string
	release func()
}

// Model returns the key of the model.
func (l *Lease) Model() string { return l.model }

// Release ends the lease. Further calls do nothing.
func (l *Lease) Release() { l.release() }

// Acquire waits until the model called r.Name is loaded, and returns a lease on it.
// It sets r's ID and arrival. Its error is a reason of Decide's to reject the
// request, the cause of ctx, ErrQueueFull, or ErrClosed. With r.Warm there is no
// lease.
func (s *Scheduler) Acquire(ctx context.Context, r Request) (*Lease, error) {
	r.ID = s.ids.Add(1)
	reply := make(chan answer, 1)
	sent := s.send(func(l *loop) {
		r.Arrived = time.Now()
		err := ErrClosed
		if !l.closed {
			err = l.state.Arrive(&r)
		}
		if err != nil {
			reply <- answer{err: err}
			return
		}
		l.replies[r.ID] = reply
	})
	if !sent {
		return nil, ErrClosed
	}
	var a answer
	select {
	case a = <-reply:
	case <-ctx.Done():
		s.send(func(l *loop) {
			if l.state.Leave(r.ID) {
				l.reply(r.ID, answer{err: context.Cause(ctx)})
			}
		})
		if a = <-reply; a.err == nil { // the lease was given in the meantime
			s.release(r.ID)
			a.err = context.Cause(ctx)
		}
	}
	if a.err != nil || r.Warm {
		return nil, a.err
	}
	return &Lease{model: a.model, release: sync.OnceFunc(func() { s.release(r.ID) })}, nil
}

func (s *Scheduler) release(id uint64) {
	s.send(func(l *loop) { l.state.Release(id, time.Now()) })
}
