package rocm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
)

// poolContext is the context in tokens, for all slots together, of models whose
// settings leave it open. A model alone gets the largest context that fits; in a
// pool that would leave no memory for a second model.
const poolContext = 32768

// poolCache is the main memory in bytes for the prompt cache of a model whose settings
// leave it open; it is no more than a sixteenth of the host's memory. llama-server's own
// limit of 8 GiB would let a few models exhaust the host.
const poolCache = 1 << 30

// correctionKey names a model on a place.
type correctionKey struct{ model, place string }

// planAge is how long a plan holds, so that many requests for a model that is not
// loaded do not plan it one after another.
const planAge = time.Second

// plan finds the ways to place a model, as if none of our models were loaded, and
// passes them to the scheduler. It returns an error that no free memory could cure,
// or a *scheduler.NoRoomError.
func (p *Pool) plan(key string) error {
	p.mu.Lock()
	m := p.models[key]
	p.mu.Unlock()
	if m == nil {
		return ErrUnknownModel
	}
	m.planning.Lock()
	defer m.planning.Unlock()
	if time.Since(m.plannedAt) < planAge {
		return m.planErr
	}
	m.planErr = p.replan(key, m)
	m.plannedAt = time.Now()
	return m.planErr
}

// forgetPlan makes the next plan a new one.
func (m *poolModel) forgetPlan() {
	m.planning.Lock()
	defer m.planning.Unlock()
	m.plannedAt = time.Time{}
}

func (p *Pool) replan(key string, m *poolModel) error {
	planned, placements, options, err := p.placements(m)
	p.mu.Lock()
	m.refusal = err
	if planned != nil {
		m.planned = planned
	}
	if err == nil {
		m.options = options
	}
	p.mu.Unlock()
	p.sched.Planned(key, placements, err)
	if errors.Is(err, plan.ErrDoesNotFit) {
		err = fmt.Errorf("model %s: %w", m.name(), &scheduler.NoRoomError{Cause: err})
	}
	return err
}

// placements returns the ways to place a model, all equally good, with the options
// that lead to each, by the place of the first card.
func (p *Pool) placements(m *poolModel) (best *plan.Plan, all []scheduler.Placement, options map[string]plan.Options, err error) {
	now, err := p.machineFor(&m.settings)
	if err != nil {
		return nil, nil, nil, err
	}
	_, f, err := machine.OpenModel(m.path)
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() { _ = f.Close() }()
	if err := now.ReadVulkan(context.Background(), f, m.settings.planOptions(f)); err != nil {
		return nil, nil, nil, err
	}
	if found := now.Vulkan(); len(found) > 0 {
		p.mu.Lock()
		p.vulkan = found
		p.mu.Unlock()
	}
	best, err = planInPool(now, m, f, m.settings.planOptions(f))
	if cause := errors.Unwrap(err); errors.Is(cause, plan.ErrDoesNotFit) {
		err = cause // without the path, which is not for clients
	}
	if err != nil {
		return nil, nil, nil, err
	}
	options = map[string]plan.Options{}
	var refusals []string
	for _, each := range p.alternatives(now, m, f, best) {
		if reason := m.refuse(each); reason != "" {
			refusals = append(refusals, reason)
			continue
		}
		options[firstCard(each)] = each.Request.Options
		all = append(all, p.corrected(m.key, each))
	}
	if len(all) == 0 {
		return best, nil, nil, fmt.Errorf("%w: %s", plan.ErrDoesNotFit, strings.Join(refusals, "; "))
	}
	return best, all, options, nil
}

// planInPool plans a model. A context that the settings leave open is the one that
// fits, at most poolContext, and a prompt cache that they leave open is limited by
// poolCache.
func planInPool(now *machine.Machine, m *poolModel, f *gguf.File, o plan.Options) (*plan.Plan, error) {
	if o.Cache.HostLimit == 0 {
		o.Cache.HostLimit = poolCacheLimit(now.HostMemory)
	}
	p, err := now.PlanFile(m.path, f, o)
	if err != nil || o.Context != 0 {
		return p, err
	}
	o.Context = min(p.Context, poolContext)
	return now.PlanFile(m.path, f, o)
}

// poolCacheLimit returns plan.Cache.HostLimit for a machine with that much main memory
// for all models; 0: unknown.
func poolCacheLimit(host uint64) int64 {
	limit := uint64(poolCache)
	if host > 0 {
		limit = min(limit, host/16)
	}
	if limit < plan.MiB {
		return -1
	}
	return int64(limit / plan.MiB * plan.MiB)
}

// alternatives returns the plan for each card that is of the same kind as that of
// the best plan. A model that the settings place has one plan.
func (p *Pool) alternatives(now *machine.Machine, m *poolModel, f *gguf.File, best *plan.Plan) []*plan.Plan {
	o := m.settings.planOptions(f)
	if !best.GPU || best.Software() || o.Devices.ID != "" || o.Devices.Count > 1 {
		return []*plan.Plan{best}
	}
	var all []*plan.Plan
	for _, d := range now.Devices {
		if d.Integrated != best.Chosen[0].Integrated {
			continue
		}
		o.Devices.ID = cmp.Or(d.UUID(), d.ID())
		if each, err := planInPool(now, m, f, o); err == nil && each.GPU && each.Chosen[0].ID() == d.ID() {
			all = append(all, each)
		}
	}
	if len(all) == 0 {
		return []*plan.Plan{best}
	}
	return all
}

// refuse returns why a plan must not be used, "" if it may.
func (m *poolModel) refuse(p *plan.Plan) string {
	if !p.GPU || p.Fits || m.partial {
		return ""
	}
	e := p.Devices[0]
	return fmt.Sprintf("only %d of its %d layers fit on %s, which has %.1f of %.1f GiB free besides the models of this service; "+
		"use a shorter context, a smaller quantisation, or allow a part of it on the CPU (partial-offload, gpu-layers)",
		p.WholeLayers, p.TotalLayers, e.Name, float64(e.Free)/(1<<30), float64(e.Total)/(1<<30))
}

// firstCard returns the place of a plan's first card, scheduler.Host without one.
func firstCard(p *plan.Plan) string {
	if len(p.Devices) > 0 && !p.Software() {
		return p.Devices[0].Place
	}
	return scheduler.Host
}

// placementOf returns what a plan takes on each place.
func placementOf(p *plan.Plan) scheduler.Placement {
	var all scheduler.Placement
	host := p.Host.Used()
	for _, e := range p.Devices {
		if p.Software() {
			host += e.Used() // a software driver computes in main memory
			continue
		}
		all = append(all, scheduler.Need{Place: e.Place, Bytes: e.Used()})
	}
	if limit := p.Request.Options.Cache.HostLimit; limit > 0 {
		host += uint64(limit)
	}
	if p.Request.Options.Overcommit {
		host = 0 // it is read from disk again and again, as was asked for
	}
	return append(all, scheduler.Need{Place: scheduler.Host, Bytes: host})
}

// corrected returns what a plan takes, in the light of what the model took the last
// time.
func (p *Pool) corrected(key string, planned *plan.Plan) scheduler.Placement {
	placement := placementOf(planned)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, n := range placement {
		if factor, ok := p.corrections[correctionKey{key, n.Place}]; ok {
			placement[i].Bytes = uint64(float64(n.Bytes) * factor)
		}
	}
	return placement
}

// The limits of a correction. A difference beyond them is the work of another
// program, and no error of the estimate.
const leastCorrection, mostCorrection = 0.5, 1.5

// measured returns what a model holds after it was loaded: on cards, by how much the
// used memory has grown; on the host, where mapped files make that no measure, the
// estimate. It remembers for the next time if the model took more than estimated. If
// it took less, it still needs the estimate to be loaded: llama-server's own --fit
// would move layers to the host.
func (p *Pool) measured(key string, planned *plan.Plan, grown map[string]uint64) scheduler.Placement {
	placement := placementOf(planned)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, n := range placement {
		bytes := grown[n.Place]
		if bytes == 0 || n.Bytes == 0 {
			continue
		}
		if factor := float64(bytes) / float64(n.Bytes); factor >= leastCorrection && factor <= mostCorrection {
			placement[i].Bytes = bytes
			p.corrections[correctionKey{key, n.Place}] = max(factor, 1)
		}
	}
	return placement
}

// growth returns by how much the values of after are above those of before.
func growth(before, after map[string]uint64) map[string]uint64 {
	grown := map[string]uint64{}
	for place, now := range after {
		if was, ok := before[place]; ok && now > was {
			grown[place] = now - was
		}
	}
	return grown
}

// machineFor returns a machine for the bundle or server of a model's settings, as it is
// now, whose cards have the memory free that our own models hold.
func (p *Pool) machineFor(s *Settings) (*machine.Machine, error) {
	key := s.Bundle + "\x00" + s.Server
	p.mu.Lock()
	m := p.machines[key]
	p.mu.Unlock()
	if m == nil {
		var err error
		if m, err = DetectMachine(context.Background(), Settings{Bundle: s.Bundle, Server: s.Server, SysRoot: p.sysRoot, Log: p.log}); err != nil {
			return nil, err
		}
		p.mu.Lock()
		p.machines[key] = m
		p.mu.Unlock()
	}
	now := *m
	now.Refresh()
	held := p.heldMemory()
	for i := range now.Devices {
		d := &now.Devices[i]
		if !d.MemoryKnown {
			continue // its used memory is not that of now
		}
		ours := held[d.ID()]
		d.ComputeUsed -= min(d.ComputeUsed, ours)
		inVRAM := min(d.VRAMUsed, ours)
		d.VRAMUsed -= inVRAM
		d.GTTUsed -= min(d.GTTUsed, ours-inVRAM)
	}
	p.mu.Lock()
	limit := p.settings.HostMemory
	p.mu.Unlock()
	if limit > 0 && (now.HostMemory == 0 || limit < now.HostMemory) {
		now.HostMemory = limit
	}
	return &now, nil
}

// heldMemory returns what the pool's models hold on each place, in bytes.
func (p *Pool) heldMemory() map[string]uint64 {
	held := map[string]uint64{}
	for _, m := range p.sched.Models() {
		for _, n := range m.Held {
			held[n.Place] += n.Bytes
		}
	}
	return held
}
