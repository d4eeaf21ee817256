package rocm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// ModelState is what a model of a pool is doing.
type ModelState string

// The states of a model. A model in ModelFailed is loaded again on demand.
const (
	ModelUnloaded  ModelState = "unloaded"
	ModelLoading   ModelState = "loading"
	ModelLoaded    ModelState = "loaded"
	ModelUnloading ModelState = "unloading"
	ModelFailed    ModelState = "failed"
)

// ModelStatus describes a model of a pool.
type ModelStatus struct {
	Name    string
	Aliases []string
	// Path is the model's first file, Size the bytes of all its files.
	Path string
	Size int64
	// State is what the model is doing, Progress how far loading it has come.
	State    ModelState
	Progress LoadProgress
	// Process is the state of its llama-server, supervise.Stopped where there is none.
	Process supervise.State
	// Fits reports whether the model can be loaded when other models make room; Why
	// are the reasons, and Refusal is the typed one where it does not fit.
	Fits    bool
	Why     []string
	Refusal error
	// Memory is what the model holds on each place, in bytes: PCI addresses or
	// other IDs of devices (gpu.Device.ID), and scheduler.Host.
	Memory map[string]uint64
	// Leases and Waiting count the requests that use the model, or wait for it.
	Leases, Waiting int
	// Cause is why the model failed; it is not loaded again before RetryAt.
	Cause   error
	RetryAt time.Time
	// LoadTime is how long the last load took, LastUse when the last lease ended.
	LoadTime time.Duration
	LastUse  time.Time
	Pinned   bool
	// Context is the number of tokens that all Slots share, as planned; 0: unknown.
	Context, Slots int
	// ChatTemplate, Embeddings, Reranking, Vision and Audio say what the model is for.
	ChatTemplate, Embeddings, Reranking, Vision, Audio bool
	Info                                               inference.ModelInfo
}

// List returns the models in the order of their names.
func (p *Pool) List() []ModelStatus {
	known := p.sched.Models()
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []ModelStatus
	for key, m := range p.models {
		if p.inUse(key) {
			all = append(all, p.status(m, known[key]))
		}
	}
	slices.SortFunc(all, func(a, b ModelStatus) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Status returns the status of a model. Its error wraps ErrUnknownModel or
// ErrNoModelName.
func (p *Pool) Status(name string) (ModelStatus, error) {
	name, err := p.resolve(name)
	if err != nil {
		return ModelStatus{}, err
	}
	var status ModelStatus
	err = p.lookUp(name, func(key string) error {
		known := p.sched.Model(key)
		p.mu.Lock()
		defer p.mu.Unlock()
		m := p.models[key]
		if m == nil {
			return fmt.Errorf("%w: %s", ErrUnknownModel, name)
		}
		status = p.status(m, known)
		return nil
	})
	return status, err
}

// Resolve returns the name of the model that a client's name stands for. Its error
// wraps ErrUnknownModel or ErrNoModelName.
func (p *Pool) Resolve(name string) (string, error) {
	name, err := p.resolve(name)
	if err != nil {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.models[p.names[name]]; m != nil {
		return m.name(), nil
	}
	return "", fmt.Errorf("%w: %s", ErrUnknownModel, name)
}

// status describes a model; the caller holds the mutex.
func (p *Pool) status(m *poolModel, known scheduler.Model) ModelStatus {
	s := ModelStatus{
		Name: m.name(), Path: m.path, Size: m.facts.size, State: stateOf(known.Phase), Progress: m.progress,
		Fits: m.refusal == nil, Refusal: m.refusal, Leases: len(known.Leases), Waiting: known.Waiting, Cause: known.Cause, RetryAt: known.RetryAt,
		LoadTime: known.LoadTime, LastUse: known.LastUse, Pinned: m.pinned, Memory: map[string]uint64{},
		ChatTemplate: m.facts.chatTemplate || m.settings.ChatTemplateFile != "", Embeddings: m.settings.Embeddings, Reranking: m.settings.Reranking,
		Vision: m.facts.vision, Audio: m.facts.audio,
	}
	for _, name := range m.names {
		if name != s.Name {
			s.Aliases = append(s.Aliases, name)
		}
	}
	for _, n := range known.Held {
		s.Memory[n.Place] += n.Bytes
	}
	if m.planned != nil {
		s.Why, s.Context, s.Slots = m.planned.Reasons, m.planned.Context, m.planned.Slots
	}
	if m.refusal != nil {
		s.Why = append([]string{m.refusal.Error()}, s.Why...)
	}
	if i := p.instances[m.key]; i != nil {
		s.Process, s.Info = i.model.srv.Child.State(), i.model.srv.Info
	}
	return s
}

func stateOf(p scheduler.Phase) ModelState {
	switch p {
	case scheduler.Loading:
		return ModelLoading
	case scheduler.Ready, scheduler.Restarting:
		return ModelLoaded
	case scheduler.Unloading:
		return ModelUnloading
	case scheduler.Failed:
		return ModelFailed
	case scheduler.Unloaded:
	}
	return ModelUnloaded
}

// progressListener calls a function until it is stopped.
type progressListener struct {
	mu   sync.Mutex
	call func(LoadProgress)
}

func (l *progressListener) tell(progress LoadProgress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.call != nil {
		l.call(progress)
	}
}

func (l *progressListener) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.call = nil
}

// poolWatcher collects the names of models that have changed, until its receiver
// takes their status.
type poolWatcher struct {
	changed map[string]bool // keys
	wake    chan struct{}   // has room for one
}

// Watch sends the status of each model that changes, until ctx ends or the pool is
// closed, and then closes the channel. A slow receiver misses changes, but never the
// last one of a model.
func (p *Pool) Watch(ctx context.Context) <-chan ModelStatus {
	out := make(chan ModelStatus)
	w := &poolWatcher{changed: map[string]bool{}, wake: make(chan struct{}, 1)}
	p.mu.Lock()
	p.watchers[w] = true
	p.mu.Unlock()
	go func() {
		defer close(out)
		defer func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.watchers, w)
		}()
		for {
			select {
			case <-w.wake:
			case <-ctx.Done():
				return
			case <-p.life.Done():
				return
			}
			for _, status := range p.takeChanges(w) {
				select {
				case out <- status:
				case <-ctx.Done():
					return
				case <-p.life.Done():
					return
				}
			}
		}
	}()
	return out
}

// takeChanges returns the status of the models that changed since the last call.
func (p *Pool) takeChanges(w *poolWatcher) []ModelStatus {
	p.mu.Lock()
	changed := w.changed
	w.changed = map[string]bool{}
	p.mu.Unlock()
	known := p.sched.Models()
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []ModelStatus
	for key := range changed {
		if m := p.models[key]; m != nil && p.inUse(key) {
			all = append(all, p.status(m, known[key]))
		}
	}
	return all
}

// publish tells the watchers that a model has changed. It never blocks.
func (p *Pool) publish(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.watchers {
		w.changed[key] = true
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}
