package scheduler

import (
	"slices"
	"time"
)

// Apply changes the state by an action that Decide returned.
func (s *State) Apply(a Action, now time.Time) {
	m := s.Models[a.Model]
	switch a.Kind {
	case Grant:
		if r := s.remove(a.Request); r != nil && !r.Warm {
			m.Leases[a.Request] = true
		}
	case Reject:
		s.remove(a.Request)
	case Load:
		m.Phase, m.Held, m.Since = Loading, a.Placement, now
	case Unload:
		m.Phase, m.Since, m.UnloadCause = Unloading, now, a.Cause
	case Drain:
		m.YieldTo = a.For
	case Resume:
		m.YieldTo = ""
	case Forget:
		delete(s.Models, a.Model)
	}
}

// remove takes a request out of the queue and returns it, nil if it is not there.
func (s *State) remove(id uint64) *Request {
	i := slices.IndexFunc(s.Queue, func(r *Request) bool { return r.ID == id })
	if i < 0 {
		return nil
	}
	r := s.Queue[i]
	s.Queue = slices.Delete(s.Queue, i, i+1)
	return r
}

// Arrive puts a request into the queue. Its error is ErrUnknownModel, or
// ErrQueueFull where as many requests wait for the model as may, and no other client
// has more of them than this one will have: its newest one is rejected otherwise, so
// that no client keeps another one out.
func (s *State) Arrive(r *Request) error {
	m := s.model(r)
	if m == nil {
		return ErrUnknownModel
	}
	if s.Limits.Queue > 0 && (!m.loaded() || m.draining()) && s.waiting(s.Names[r.Name]) >= s.Limits.Queue {
		last := s.crowding(s.Names[r.Name], r.Client)
		if last == nil || !s.has(ruleCrowding) {
			return ErrQueueFull
		}
		last.Err = ErrQueueFull
	}
	s.Queue = append(s.Queue, r)
	return nil
}

// Leave takes a request whose client has left out of the queue, and reports
// whether it was there.
func (s *State) Leave(id uint64) bool {
	if !s.has(ruleLeave) {
		return true
	}
	return s.remove(id) != nil
}

// Release ends a lease. Releasing it again has no effect, nor has releasing one
// whose model is gone.
func (s *State) Release(id uint64, now time.Time) {
	for _, m := range s.Models {
		if m.Leases[id] {
			delete(m.Leases, id)
			m.LastUse = now
		}
	}
}

// Planned sets the ways to place a model that is not loaded, or why there is none.
func (s *State) Planned(key string, placements []Placement, refusal error) {
	if m := s.Models[key]; m != nil {
		m.Placements, m.Refusal = placements, refusal
	}
}

// Loaded reports that a model is ready, and what it holds.
func (s *State) Loaded(key string, held Placement, now time.Time) {
	m := s.Models[key]
	m.Phase, m.Held, m.LoadTime, m.Cause = Ready, held, now.Sub(m.Since), nil
	m.Since, m.LastUse = now, now
}

// LoadFailed reports that loading a model failed, and has released its memory.
func (s *State) LoadFailed(key string, cause error, now time.Time) {
	m := s.Models[key]
	m.Phase, m.Held, m.Since = Failed, nil, now
	s.fail(m, cause, now)
}

// Exited reports that the process of a loaded model has ended for good. Its leases
// are void. The caller releases what the process left behind, and then calls
// Unloaded.
func (s *State) Exited(key string, cause error, now time.Time) {
	m := s.Models[key]
	if now.Sub(m.Since) > s.Limits.MaxBackoff {
		m.Failures = 0
	}
	clear(m.Leases)
	m.Phase, m.Since = Unloading, now
	s.fail(m, cause, now)
}

// fail records a failure and when the model may be tried again.
func (s *State) fail(m *Model, cause error, now time.Time) {
	m.Cause, m.YieldTo = cause, ""
	m.RetryAt = now.Add(s.Limits.backoff(m.Failures))
	m.Failures++
}

// backoff returns the wait after a number of failures before the last one.
func (l Limits) backoff(failures int) time.Duration {
	wait := l.MinBackoff
	for range failures {
		if wait >= l.MaxBackoff/2 {
			return l.MaxBackoff
		}
		wait *= 2
	}
	return wait
}

// Unloaded reports that a model is unloaded and its memory is free.
func (s *State) Unloaded(key string, now time.Time) {
	m := s.Models[key]
	m.Phase, m.Held, m.Since = Unloaded, nil, now
	m.Evict, m.YieldTo = false, ""
	if m.Cause != nil {
		m.Phase = Failed
	} else {
		m.Failures = 0
	}
}

// Restarting reports that the process of a loaded model has failed and is being
// restarted; Restarted, that it is ready again.
func (s *State) Restarting(key string) {
	if m := s.Models[key]; m != nil && m.Phase == Ready {
		m.Phase = Restarting
	}
}

// Restarted ends what Restarting began.
func (s *State) Restarted(key string) {
	if m := s.Models[key]; m != nil && m.Phase == Restarting {
		m.Phase = Ready
	}
}

// AskUnload marks a model to be unloaded when no request uses it. Requests that
// wait while it loads are rejected; cancel reports that the load must be canceled.
// Its error is ErrUnknownModel, ErrPinned or ErrNotLoaded.
func (s *State) AskUnload(key string) (cancel bool, err error) {
	m := s.Models[key]
	switch {
	case m == nil || m.Retired:
		return false, ErrUnknownModel
	case m.Pinned:
		return false, ErrPinned
	case m.loaded():
		m.Evict = true
	case m.Phase == Loading:
		s.markAll(key, ErrUnloaded)
		return true, nil
	case m.Phase == Unloading:
	default:
		return false, ErrNotLoaded
	}
	return false, nil
}

// LoadCanceled reports that a load ended because it was canceled.
func (s *State) LoadCanceled(key string, now time.Time) {
	m := s.Models[key]
	m.Phase, m.Held, m.Since, m.Cause = Unloaded, nil, now, nil
}

// markAll makes the next decision reject the requests for a model.
func (s *State) markAll(key string, err error) {
	for _, r := range s.Queue {
		if s.Names[r.Name] == key {
			r.Err = err
		}
	}
}

// Configure replaces the settings. A model that is in both keeps running. One that
// is not there any more is retired: it drains and goes. Requests that wait for a
// name get the model that the name has now.
func (s *State) Configure(names map[string]string, specs map[string]Spec) {
	s.Names = names
	for key, m := range s.Models {
		spec, ok := specs[key]
		if m.Retired = !ok && s.has(ruleRetired); ok {
			m.Spec = spec
		}
	}
	for key, spec := range specs {
		if s.Models[key] == nil {
			s.Models[key] = &Model{Spec: spec, Leases: map[uint64]bool{}}
		}
	}
}

// Next returns when the next decision is due although nothing happens; the zero
// time: never.
func (s *State) Next(now time.Time) time.Time {
	var next time.Time
	at := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, r := range s.Queue {
		at(r.Deadline)
		at(r.Arrived.Add(s.Limits.Patience))
	}
	for _, m := range s.Models {
		if m.Phase == Failed && m.Pinned {
			at(m.RetryAt)
		}
		if !m.loaded() {
			continue
		}
		if s.Limits.Poll > 0 {
			at(now.Add(s.Limits.Poll))
		}
		at(m.Since.Add(s.Limits.MinResidency))
		if m.IdleUnload > 0 && m.idle() {
			at(m.idleSince().Add(m.IdleUnload))
		}
	}
	return next
}
