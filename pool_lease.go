package rocm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
)

// AcquireRequest asks for a lease.
type AcquireRequest struct {
	// Name is a model's name or alias; empty: the default, or the only model.
	Name string
	// Client names the one who asks: clients of the same priority take turns, and none
	// fills the queue alone. Requests without it are one client's.
	Client string
	// Priority orders requests that wait; higher ones go first.
	Priority int
	// Deadline is when to give up; zero: when the context ends.
	Deadline time.Time
	// LoadedOnly returns ErrNotLoaded where the model is not loaded.
	LoadedOnly bool
	// Progress is called while the model loads; nil: not called. It must not block.
	Progress func(LoadProgress)
}

// Lease keeps a model loaded until Release.
type Lease struct {
	model   *Model
	name    string
	release func()
}

// Model returns the model. It must not be closed, nor used after Release.
func (l *Lease) Model() *Model { return l.model }

// Name returns the model's name, never an alias.
func (l *Lease) Name() string { return l.name }

// Release ends the lease. Further calls do nothing.
func (l *Lease) Release() { l.release() }

// Acquire is AcquireWith for a request with only a name.
func (p *Pool) Acquire(ctx context.Context, name string) (*Lease, error) {
	return p.AcquireWith(ctx, AcquireRequest{Name: name})
}

// AcquireWith waits until a model is loaded, and returns a lease on it. Its error
// wraps ErrUnknownModel, ErrNoModelName, ErrNotLoaded, ErrNoRoom, ErrQueueFull,
// ErrUnloaded, the cause of ctx, the cause of a failed load (as a *scheduler.FailedError, which has
// the time of the next attempt), or ErrClosed.
func (p *Pool) AcquireWith(ctx context.Context, r AcquireRequest) (*Lease, error) {
	for {
		l, err := p.acquire(ctx, r)
		if !errors.Is(err, errProcessEnded) {
			return l, err
		}
	}
}

// acquire is AcquireWith, once.
func (p *Pool) acquire(ctx context.Context, r AcquireRequest) (*Lease, error) {
	name, err := p.resolve(r.Name)
	if err != nil {
		return nil, err
	}
	stop, err := p.prepareLoad(name, r)
	if err != nil {
		return nil, err
	}
	defer stop()
	l, err := p.sched.Acquire(ctx, scheduler.Request{Name: name, Client: r.Client, Priority: r.Priority, Deadline: r.Deadline})
	if err != nil {
		return nil, p.acquireError(name, err)
	}
	p.mu.Lock()
	i, m := p.instances[l.Model()], p.models[l.Model()]
	p.mu.Unlock()
	if i == nil || m == nil {
		l.Release()
		return nil, errProcessEnded
	}
	return &Lease{model: i.model, name: m.name(), release: l.Release}, nil
}

// lookUp calls f, without the mutex, for the model that a name has. It calls f again if
// the name has another model by then, and f has not found the former one: settings may
// change at any time.
func (p *Pool) lookUp(name string, f func(key string) error) error {
	for {
		p.mu.Lock()
		key := p.names[name]
		p.mu.Unlock()
		if key == "" {
			return fmt.Errorf("%w: %s", ErrUnknownModel, name)
		}
		err := f(key)
		if !errors.Is(err, ErrUnknownModel) {
			return err
		}
		p.mu.Lock()
		same := p.names[name] == key
		p.mu.Unlock()
		if same {
			return err
		}
	}
}

// prepareLoad plans a model that is not loaded, and lets progress be told. The
// caller calls stop.
func (p *Pool) prepareLoad(name string, r AcquireRequest) (stop func(), err error) {
	err = p.lookUp(name, func(key string) error {
		stop, err = p.prepareKey(name, key, r)
		return err
	})
	return stop, err
}

func (p *Pool) prepareKey(name, key string, r AcquireRequest) (stop func(), err error) {
	p.mu.Lock()
	m := p.models[key]
	if m == nil {
		p.mu.Unlock()
		return nil, fmt.Errorf("%w: %s", ErrUnknownModel, name)
	}
	phase := m.phase
	fails := phase == scheduler.Failed && time.Now().Before(m.retryAt) // the scheduler rejects the request
	stop = func() {}
	if r.Progress != nil && phase != scheduler.Ready {
		l := &progressListener{call: r.Progress}
		m.listeners[l] = true
		stop = func() {
			l.stop()
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(m.listeners, l)
		}
	}
	p.mu.Unlock()
	switch {
	case r.LoadedOnly && phase != scheduler.Ready && phase != scheduler.Restarting:
		err = fmt.Errorf("%w: %s", ErrNotLoaded, name)
	case phase == scheduler.Unloaded, phase == scheduler.Failed && !fails:
		err = p.plan(key)
	}
	if err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// resolve returns the name that an empty name stands for.
func (p *Pool) resolve(name string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return "", ErrClosed
	case name != "":
	case p.settings.Default != "":
		name = p.settings.Default
	default:
		only := ""
		for _, key := range p.names {
			if only != "" && key != only {
				return "", ErrNoModelName
			}
			only = key
		}
		if m := p.models[only]; m != nil {
			return m.name(), nil
		}
		return "", ErrUnknownModel
	}
	if p.names[name] == "" {
		return "", fmt.Errorf("%w: %s", ErrUnknownModel, name)
	}
	return name, nil
}

// acquireError adds the model's name to an error of the scheduler.
func (p *Pool) acquireError(name string, err error) error {
	if errors.Is(err, scheduler.ErrClosed) {
		return ErrClosed
	}
	return fmt.Errorf("model %s: %w", name, err)
}
