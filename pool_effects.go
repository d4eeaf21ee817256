package rocm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/host"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// poolInstance is a loaded model.
type poolInstance struct {
	model   *Model
	grown   map[string]uint64 // the used memory of each card, while the model was loaded
	used    map[string]uint64 // and after that
	watched chan struct{}     // closed when its process is no longer watched
}

// poolEffects implements scheduler.Effects.
type poolEffects struct{ *Pool }

var _ scheduler.Effects = poolEffects{}

// Memory implements scheduler.Effects with what the kernel reports.
func (e poolEffects) Memory() []scheduler.Place {
	e.mu.Lock()
	hostLimit, yield := e.settings.HostMemory, e.settings.YieldMemory
	e.mu.Unlock()
	if yield == 0 {
		yield = plan.DefaultMargin / 4
	}
	places := []scheduler.Place{hostPlace(host.ReadMemory(e.root()), hostLimit)}
	for _, d := range e.cards() {
		total, used := cardMemory(d)
		place := scheduler.Place{ID: d.ID(), Total: total, Free: total - min(used, total), Margin: plan.DefaultMargin, Yield: min(yield, plan.DefaultMargin)}
		if !d.MemoryKnown { // nobody counts what our models hold
			place.Mapped, place.Yield = true, 0
		}
		places = append(places, place)
	}
	return places
}

// cardMemory returns the total and the used memory of a card that models may be planned
// in, in bytes.
func cardMemory(d gpu.Device) (total, used uint64) {
	if d.Vulkan != nil {
		return d.VulkanMemory()
	}
	return d.VRAMTotal, d.VRAMUsed
}

// hostPlace returns main memory as a place.
func hostPlace(m host.Memory, limit uint64) scheduler.Place {
	total := m.Usable()
	if limit > 0 && (total == 0 || limit < total) {
		total = limit
	}
	if total == 0 {
		total = math.MaxUint64 // unknown: no limit
	}
	p := scheduler.Place{ID: scheduler.Host, Total: total, Free: total, Margin: min(plan.DefaultMargin, total/16), Mapped: true}
	if m.Available > 0 {
		p.Free = min(total, m.Available)
	}
	return p
}

func (p *Pool) root() string {
	s := Settings{SysRoot: p.sysRoot}
	return s.sysRoot()
}

// cards returns the GPUs with their memory as it is now, and with what Vulkan reported of
// them when a model was planned.
func (p *Pool) cards() []gpu.Device {
	all, err := gpu.NewFS(p.root()).Cards()
	if err != nil && !errors.Is(err, gpu.ErrNoDriver) {
		p.log.Debug("some GPUs could not be read", "cause", err.Error())
	}
	p.mu.Lock()
	found := p.vulkan
	p.mu.Unlock()
	return gpu.MatchVulkan(all, found)
}

// usedMemory returns the used memory of each card, in bytes.
func (p *Pool) usedMemory() map[string]uint64 {
	used := map[string]uint64{}
	for _, d := range p.cards() {
		if d.MemoryKnown {
			_, used[d.ID()] = cardMemory(d)
		}
	}
	return used
}

// Load implements scheduler.Effects.
func (e poolEffects) Load(ctx context.Context, key string, placement scheduler.Placement) (scheduler.Placement, error) {
	e.mu.Lock()
	m := e.models[key]
	s := m.settings
	s.Alias = m.name()
	first := scheduler.Host
	if len(placement) > 0 {
		first = placement[0].Place
	}
	if o, ok := m.options[first]; ok {
		s.Options = o
	}
	e.mu.Unlock()
	e.watchLoad(key, m, &s)
	before := e.usedMemory()
	server, err := e.start(ctx, m, s)
	if err != nil {
		return nil, err
	}
	model, err := newModel(ctx, server)
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	i := &poolInstance{model: model, used: e.usedMemory(), watched: make(chan struct{})}
	i.grown = growth(before, i.used)
	held := e.measured(key, server.Plan, i.grown)
	e.mu.Lock()
	e.instances[key] = i
	m.planned = server.Plan
	e.mu.Unlock()
	e.tasks.Go(func() {
		defer close(i.watched)
		<-server.Child.Done()
		if cause := server.Child.Err(); cause != nil {
			e.sched.Exited(key, cause)
		}
	})
	return held, nil
}

// start starts the server of a model. If other programs have taken memory since the
// decision, it does not let llama-server move layers to the host, unless the settings
// allow that.
func (e poolEffects) start(ctx context.Context, m *poolModel, s Settings) (*Server, error) {
	prepared, err := Prepare(ctx, m.path, s)
	if err != nil {
		return nil, err
	}
	if reason := m.refuse(prepared.srv.Plan); reason != "" {
		return nil, errors.Join(fmt.Errorf("%w: %s", plan.ErrDoesNotFit, reason), prepared.Close())
	}
	return prepared.Start(ctx)
}

// watchLoad adds to the settings what reports the progress of a load and the
// restarts of the process.
func (e poolEffects) watchLoad(key string, m *poolModel, s *Settings) {
	told, event := s.Progress, s.OnEvent
	s.Progress = func(progress LoadProgress) {
		if told != nil {
			told(progress)
		}
		e.tellProgress(m, progress)
	}
	s.OnEvent = func(ev supervise.Event) {
		if event != nil {
			event(ev)
		}
		switch {
		case ev.Attempt < 2 || ev.From == ev.To:
		case ev.To == supervise.Starting:
			e.sched.Restarting(key)
		case ev.To == supervise.Ready:
			e.sched.Restarted(key)
		}
	}
}

// tellProgress calls those who wait for the model.
func (p *Pool) tellProgress(m *poolModel, progress LoadProgress) {
	p.mu.Lock()
	m.progress = progress
	listeners := maps.Clone(m.listeners)
	p.mu.Unlock()
	for l := range listeners {
		l.tell(progress)
	}
	p.publish(m.key)
}

const (
	// freedDeadline limits the wait for the driver to report the memory of a
	// process that has ended as free.
	freedDeadline = 10 * time.Second
	freedInterval = 50 * time.Millisecond
)

// Unload implements scheduler.Effects.
func (e poolEffects) Unload(key string) {
	e.mu.Lock()
	i := e.instances[key]
	delete(e.instances, key)
	e.mu.Unlock()
	if i == nil {
		return
	}
	before := i.used
	if !i.model.srv.Child.State().Final() {
		before = e.usedMemory()
	}
	if err := i.model.Close(); err != nil {
		e.log.Warn("a model was not unloaded cleanly", "model", key, "cause", err.Error())
	}
	<-i.watched
	e.waitFreed(key, i.grown, before)
}

// waitFreed waits until the cards of an unloaded model have its memory free again:
// the driver updates its counters some time after the process has exited. Where the
// counters did not move when the model was loaded, there is nothing to wait for.
func (e poolEffects) waitFreed(key string, grown, before map[string]uint64) {
	deadline := time.Now().Add(freedDeadline)
	for place, bytes := range grown {
		was := before[place]
		for e.usedMemory()[place] > was-min(was, bytes-bytes/8) {
			if !time.Now().Before(deadline) {
				e.log.Warn("the GPU's memory was not freed in time", "model", key, "device", place)
				return
			}
			time.Sleep(freedInterval)
		}
	}
}

// Changed implements scheduler.Effects.
func (e poolEffects) Changed(key string, s scheduler.Model) {
	e.mu.Lock()
	m := e.models[key]
	if m == nil {
		e.mu.Unlock()
		return
	}
	begins := s.Phase == scheduler.Unloading && m.phase != scheduler.Unloading
	m.phase, m.retryAt = s.Phase, s.RetryAt
	if told := e.settings.OnUnload; begins && told != nil {
		told(m.name(), s.UnloadCause)
	}
	if s.Phase != scheduler.Loading {
		m.progress = LoadProgress{}
	}
	if s.Retired && s.Phase == scheduler.Unloaded && !e.inUse(key) {
		delete(e.models, key)
		e.mu.Unlock()
		return
	}
	e.mu.Unlock()
	e.publish(key)
}

// inUse reports whether a name has the model; the caller holds the mutex.
func (p *Pool) inUse(key string) bool {
	for _, k := range p.names {
		if k == key {
			return true
		}
	}
	return false
}
