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

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
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
	// ErrUnloaded reports that a model was unloaded on request while it loaded.
	ErrUnloaded = scheduler.ErrUnloaded
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
	vulkan    []gpu.Vulkan // the devices that Vulkan reported for the newest plan that depends on them
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
	added := map[string]*poolModel{}
	p.mu.Lock()
	p.settings, p.names = s, names
	for key, m := range models {
		if old := p.models[key]; old != nil {
			old.rename(m)
			m = old
		} else {
			added[key] = m
		}
		p.models[key] = m
		specs[key] = scheduler.Spec{Pinned: m.pinned, IdleUnload: m.idleUnload}
	}
	p.mu.Unlock()
	p.sched.Configure(maps.Clone(names), specs)
	for _, m := range added {
		m.forgetPlan() // the scheduler did not know the model yet
	}
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

// errProcessEnded reports that a model's process ended after the lease was given.
var errProcessEnded = errors.New("the model's process ended")

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

// Child returns the process of a loaded model without a lease, for those who observe
// it: it can end at any time, and is never started by this call.
func (p *Pool) Child(name string) (*supervise.Child, bool) {
	name, err := p.resolve(name)
	if err != nil {
		return nil, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.instances[p.names[name]]
	if i == nil {
		return nil, false
	}
	return i.model.srv.Child, true
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
