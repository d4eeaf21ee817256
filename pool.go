package rocm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
)

// Conditions that errors of a Pool wrap, besides those of loading a model.
var (
	// ErrUnknownModel reports a name that no model of the pool has.
	ErrUnknownModel = scheduler.ErrUnknownModel
	// ErrNoModelName reports an empty name where the pool has several models and no
	// default.
	ErrNoModelName = errors.New("no model is named, and there are several")
	// ErrNoRoom reports that a model does not fit into the memory that there is. The
	// error is a *scheduler.NoRoomError, which has the reasons.
	ErrNoRoom = scheduler.ErrNoRoom
	// ErrQueueFull reports that too many requests wait for a model.
	ErrQueueFull = scheduler.ErrQueueFull
	// ErrPinned reports that a pinned model was asked to be unloaded.
	ErrPinned = scheduler.ErrPinned
	// ErrNotLoaded reports that a model is not loaded and must not be loaded.
	ErrNotLoaded = scheduler.ErrNotLoaded
)

// Pool loads models by name when they are asked for, and unloads them when their
// memory is needed. It never loads a model that the free memory of the cards and of
// the host has no room for. Package runtime/scheduler describes how it decides.
//
// All methods may be called concurrently.
type Pool struct {
	sched   *scheduler.Scheduler
	limits  scheduler.Limits
	sysRoot string
	log     *slog.Logger
	life    context.Context //nolint:containedctx // the life of the pool itself
	end     context.CancelFunc
	tasks   sync.WaitGroup // planning in the background, and watched processes

	configuring sync.Mutex // held by Configure

	mu        sync.Mutex
	settings  PoolSettings
	names     map[string]string     // the keys of models by name and alias
	models    map[string]*poolModel // by key, also those that are going
	machines  map[string]*machine.Machine
	instances map[string]*poolInstance
	// corrections are the factors by which a model's memory on a place was more than
	// estimated the last time.
	corrections map[correctionKey]float64
	watchers    map[*poolWatcher]bool
	closed      bool
}

// NewPool returns a pool that loads its pinned models in the background. Its error
// joins one for each model whose settings or file cannot be used.
func NewPool(s PoolSettings) (*Pool, error) {
	if !supported() {
		return nil, ErrUnsupportedPlatform
	}
	p := &Pool{
		limits: s.limits(), sysRoot: s.SysRoot, log: (&Settings{Log: s.Log}).logger(),
		models: map[string]*poolModel{}, machines: map[string]*machine.Machine{}, instances: map[string]*poolInstance{},
		corrections: map[correctionKey]float64{}, watchers: map[*poolWatcher]bool{},
	}
	names, models, err := readModels(s)
	if err != nil {
		return nil, err
	}
	p.life, p.end = context.WithCancel(context.Background())
	p.settings = s // Memory reads it
	p.sched = scheduler.New(p.limits, poolEffects{p}, p.log)
	p.configure(s, names, models)
	return p, nil
}

// Configure replaces the models, the default, YieldMemory and HostMemory. If a model
// cannot be used, nothing changes. A model with the same file and settings keeps
// running, also under another name; a changed one, and one that is no longer there,
// is unloaded when no lease needs it. It returns what changed, for a log.
func (p *Pool) Configure(s PoolSettings) ([]string, error) {
	p.configuring.Lock()
	defer p.configuring.Unlock()
	names, models, err := readModels(s)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	changes := describeChanges(p.names, names, p.models, models)
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	p.configure(s, names, models)
	return changes, nil
}

func (p *Pool) configure(s PoolSettings, names map[string]string, models map[string]*poolModel) {
	specs := map[string]scheduler.Spec{}
	p.mu.Lock()
	p.settings, p.names = s, names
	for key, m := range models {
		if old := p.models[key]; old != nil {
			old.rename(m)
			m = old
		}
		p.models[key] = m
		specs[key] = scheduler.Spec{Pinned: m.pinned, IdleUnload: m.idleUnload}
	}
	p.mu.Unlock()
	p.sched.Configure(maps.Clone(names), specs)
	pinnedFirst := slices.SortedFunc(maps.Keys(models), func(a, b string) int {
		if models[a].pinned != models[b].pinned {
			if models[a].pinned {
				return -1
			}
			return 1
		}
		return slices.Compare([]string{a}, []string{b})
	})
	p.tasks.Go(func() {
		for _, key := range pinnedFirst {
			if p.life.Err() != nil {
				return
			}
			_ = p.plan(key) // Acquire returns the error
		}
	})
}

// AcquireRequest asks for a lease.
type AcquireRequest struct {
	// Name is a model's name or alias; empty: the default, or the only model.
	Name string
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
// wraps ErrUnknownModel, ErrNoModelName, ErrNotLoaded, ErrNoRoom, ErrQueueFull, the
// cause of ctx, the cause of a failed load (as a *scheduler.FailedError, which has
// the time of the next attempt), or ErrClosed.
func (p *Pool) AcquireWith(ctx context.Context, r AcquireRequest) (*Lease, error) {
	name, err := p.resolve(r.Name)
	if err != nil {
		return nil, err
	}
	stop, err := p.prepareLoad(name, r)
	if err != nil {
		return nil, err
	}
	defer stop()
	l, err := p.sched.Acquire(ctx, scheduler.Request{Name: name, Priority: r.Priority, Deadline: r.Deadline})
	if err != nil {
		return nil, p.acquireError(name, err)
	}
	p.mu.Lock()
	i, m := p.instances[l.Model()], p.models[l.Model()]
	p.mu.Unlock()
	if i == nil || m == nil { // its process ended in this moment
		l.Release()
		return nil, fmt.Errorf("model %s: its process ended; retry", name)
	}
	return &Lease{model: i.model, name: m.name(), release: l.Release}, nil
}

// prepareLoad plans a model that is not loaded, and lets progress be told. The
// caller calls stop.
func (p *Pool) prepareLoad(name string, r AcquireRequest) (stop func(), err error) {
	p.mu.Lock()
	key := p.names[name]
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

// Load loads a model without a lease, and waits for it, with the errors of
// AcquireWith.
func (p *Pool) Load(ctx context.Context, name string) error {
	name, err := p.resolve(name)
	if err != nil {
		return err
	}
	stop, err := p.prepareLoad(name, AcquireRequest{})
	if err != nil {
		return err
	}
	defer stop()
	if _, err := p.sched.Acquire(ctx, scheduler.Request{Name: name, Warm: true}); err != nil {
		return p.acquireError(name, err)
	}
	return nil
}

// Unload unloads a model as soon as no lease needs it, and waits until its memory is
// free. Its error wraps ErrUnknownModel, ErrNotLoaded, ErrPinned, the cause of ctx,
// or ErrClosed.
func (p *Pool) Unload(ctx context.Context, name string) error {
	name, err := p.resolve(name)
	if err != nil {
		return err
	}
	gone, err := p.sched.Unload(name)
	if err != nil {
		return p.acquireError(name, err)
	}
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Restart kills the process of a loaded model, which is then started again. Its error
// wraps ErrUnknownModel or ErrNotLoaded.
func (p *Pool) Restart(name string) error {
	name, err := p.resolve(name)
	if err != nil {
		return err
	}
	p.mu.Lock()
	i := p.instances[p.names[name]]
	p.mu.Unlock()
	if i == nil {
		return fmt.Errorf("%w: %s", ErrNotLoaded, name)
	}
	process, err := os.FindProcess(i.model.srv.Child.Pid())
	if err != nil || process.Pid <= 0 {
		return err // it is being restarted already
	}
	return process.Kill()
}

// Close ends all models, also those with leases, and waits for that. Requests that
// wait get ErrClosed.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.end()
	p.sched.Close()
	p.tasks.Wait()
	return nil
}
