package plan

import (
	"fmt"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

// worthSaying is the smallest amount of hidden memory that the reasons mention;
// the driver itself uses some tens of MiB on every card.
const worthSaying = 64 * MiB

// loadOf returns the load that the options describe, without the context.
func loadOf(o Options) (load, error) {
	l := load{slots: uint64(o.Slots), unified: !o.SplitContext, batch: uint64(o.Batch), flash: !o.NoFlashAttention, fullWindow: o.Cache.FullSWA}
	var err error
	if l.keyType, err = kvType(o.Cache.KeyType); err != nil {
		return l, err
	}
	if l.valueType, err = kvType(o.Cache.ValueType); err != nil {
		return l, err
	}
	if o.Slots == 0 {
		l.slots, l.unified = autoSlots, true
	}
	if o.Batch == 0 {
		l.batch = defaultBatch
	}
	l.outputs = l.slots // llama-server needs the logits of one token of each slot
	return l, nil
}

// estimate sets the memory figures and the expected number of layers.
func (p *Plan) estimate(m *model, devices []gpu.Device) error {
	o := p.Request.Options
	l, err := loadOf(o)
	if err != nil {
		return err
	}
	if err := m.checkCacheTypes(l); err != nil {
		return err
	}
	extra := p.companions()
	r := make(budget, len(devices))
	for i, d := range devices {
		e := p.deviceRow(d)
		if i == 0 {
			e.Projector, e.Adapters, e.Draft = extra.Projector, extra.Adapters, extra.Draft
		}
		p.Devices = append(p.Devices, e)
		r[i] = reduced(e.Free, plus(e.Margin, e.Used()))
	}
	l.context = p.chooseContext(m, r, l)
	a, u := p.choosePlacement(m, r, l)
	p.record(m, a, u, l)
	p.Needs = m.usage(m.hostOnly(), 0, l).host.Used()
	if len(devices) == 0 {
		p.Host.Projector, p.Host.Adapters, p.Host.Draft = extra.Projector, extra.Adapters, extra.Draft
	}
	p.explainFit()
	return p.admitHost()
}

// deviceRow returns the row of a device before the model is loaded.
func (p *Plan) deviceRow(d gpu.Device) Estimate {
	margin := p.Request.Options.Devices.Margin
	if margin == 0 {
		margin = DefaultMargin
	}
	e := Estimate{Name: strings.TrimSpace(d.Name + " " + d.PCI), Place: d.ID(), Margin: margin, Free: d.VRAMFree(), Total: d.VRAMTotal}
	if p.Backend == BackendHIP {
		e.Hidden = d.NonComputeUsed() // Vulkan's drivers count all programs
	}
	if v := d.Vulkan; v != nil && (v.Software || d.Integrated && !d.MemoryKnown) && p.Request.HostTotal > 0 {
		e.Free = min(e.Free, p.Request.HostTotal)
	}
	return e
}

// companions returns the memory of the files that are loaded with the model.
// llama-server loads them on the first device.
func (p *Plan) companions() (e Estimate) {
	r := p.Request
	if r.Projector != nil {
		e.Projector = projectorBytes(r.Projector, !r.Options.NoFlashAttention)
	}
	for _, a := range r.Adapters {
		e.Adapters += a.TensorBytes()
	}
	if r.Draft == nil {
		return e
	}
	e.Draft = r.Draft.TensorBytes()
	if d, err := newModel(r.Draft); err == nil {
		if l, err := loadOf(r.Options); err == nil {
			l.context = uint64(max(r.Options.Context, minFitContext))
			u := d.usage(d.split(len(d.layers)+1, budget{1}), 1, l)
			e.Draft = u.devices[0].Used()
		}
	}
	return e
}

// chooseContext returns the context of the options. If none is set, it returns,
// like --fit, the largest context with which everything fits: at most the trained
// one for every slot, and at least the minimum of --fit.
func (p *Plan) chooseContext(m *model, r budget, l load) uint64 {
	if c := p.Request.Options.Context; c > 0 {
		return uint64(c)
	}
	fits := func(c uint64) bool {
		l.context = c
		if len(r) == 0 {
			u := m.usage(m.hostOnly(), 0, l)
			return p.Request.HostTotal == 0 || plus(u.host.Used(), DefaultMargin) <= p.Request.HostTotal
		}
		return m.usage(m.split(p.wantLayers(m), r), len(r), l).fits(r)
	}
	most := max(m.train, cellPad) * l.slots
	least := min(uint64(minFitContext)*l.streams(), most)
	if fits(most) {
		return most
	}
	if !fits(least) {
		return least
	}
	low, high := least/cellPad, most/cellPad // in units that caches are rounded up to
	for high-low > 1 {
		if mid := (low + high) / 2; fits(mid * cellPad) {
			low = mid
		} else {
			high = mid
		}
	}
	return max(low*cellPad, least)
}

// wantLayers returns the largest number of entries that devices may hold.
func (p *Plan) wantLayers(m *model) int {
	all := len(m.layers) + 1
	if n := p.Request.Options.Layers; n > 0 {
		return min(n, all)
	}
	return all
}

func (p *Plan) choosePlacement(m *model, r budget, l load) (assignment, usage) {
	if len(r) == 0 {
		a := m.hostOnly()
		return a, m.usage(a, 0, l)
	}
	a := m.split(p.wantLayers(m), r)
	u := m.usage(a, len(r), l)
	if u.fits(r) || p.Request.Options.Layers != AutoLayers {
		return a, u // --fit does not change a number that the user set
	}
	return m.search(r, l)
}

// record copies the result to the plan.
func (p *Plan) record(m *model, a assignment, u usage, l load) {
	p.Context, p.Slots = int(l.context), int(l.slots)
	p.TotalLayers = len(m.layers) + 1
	p.Layers, p.WholeLayers = a.onDevices()
	for i := range u.devices {
		e := &p.Devices[i]
		e.Weights, e.KV, e.Compute, e.Layers = u.devices[i].Weights, u.devices[i].KV, u.devices[i].Compute, u.devices[i].Layers
	}
	p.Host = u.host
	p.Host.Total = p.Request.HostTotal
	within := true
	for _, e := range p.Devices {
		within = within && plus(e.Used(), e.Margin) <= e.Free
	}
	p.Fits = p.GPU && within && p.WholeLayers == p.TotalLayers
	p.Overfull = p.GPU && !within
}

// explainFit adds the reasons that concern memory, layers and context.
func (p *Plan) explainFit() {
	say := func(format string, args ...any) { p.Reasons = append(p.Reasons, fmt.Sprintf(format, args...)) }
	for _, e := range p.Devices {
		if e.Hidden >= worthSaying {
			say("programs other than ROCm hold %s on %s, which HIP does not see; that much is added to the margin", size(e.Hidden), e.Name)
		}
	}
	o := p.Request.Options
	switch {
	case !p.GPU:
	case p.Overfull && o.Layers != AutoLayers:
		say("%d layers were asked for and need more than is free; loading will probably fail", p.Layers)
	case p.Fits:
		say("all %d layers fit on the GPU: %s of %s free", p.TotalLayers, size(p.Devices[0].Used()), size(p.Devices[0].Free))
	case p.WholeLayers < p.Layers:
		say("%d of %d layers are expected on the GPU, %d of them with their experts; the other experts stay in host memory", p.Layers, p.TotalLayers, p.WholeLayers)
	default:
		say("%d of %d layers are expected on the GPU, the rest in host memory", p.Layers, p.TotalLayers)
	}
	if trained := p.Request.Model.ContextLength() * p.Slots; o.Context == 0 && p.Context < trained {
		say("the context is expected to be %d tokens instead of %d, so that it fits", p.Context, trained)
	}
}

// admitHost returns an error if the host's memory is too small for the model.
func (p *Plan) admitHost() error {
	need := p.Host.Used()
	for i, d := range p.Chosen {
		if d.Vulkan != nil && d.Vulkan.Software {
			need = plus(need, p.Devices[i].Used()) // its memory is the host's
		}
	}
	if p.Host.Total == 0 || need <= p.Host.Total {
		return nil
	}
	if p.Request.Options.Overcommit {
		p.Reasons = append(p.Reasons, fmt.Sprintf("the host needs %s and has %s: weights will be read from disk repeatedly", size(need), size(p.Host.Total)))
		return nil
	}
	return &OptionError{"Model", fmt.Errorf("%w: %s are needed in host memory and there are %s; use a smaller model or quantisation, a shorter context, or allow overcommit",
		ErrDoesNotFit, size(need), size(p.Host.Total))}
}

// reduced returns a-b, or 0 if b is larger.
func reduced(a, b uint64) uint64 {
	if b >= a {
		return 0
	}
	return a - b
}

func hasTarget(have []gfx.Target, sel selection) bool { return slices.Contains(have, sel.target) }

// Memory is the memory in bytes that a model uses in one place.
type Memory struct {
	Weights, KV, Compute uint64
}

// Total returns the sum.
func (m Memory) Total() uint64 { return plus(plus(m.Weights, m.KV), m.Compute) }

// Whole estimates the memory of a model that is loaded entirely into host memory
// and computes the logits of outputs tokens of each batch. llama-fit-params
// prints the same for a host without a GPU, with the batch as outputs.
func Whole(f *gguf.File, o Options, outputs int) (Memory, error) {
	_, host, err := Split(f, o, outputs, 0)
	return host, err
}

// Split estimates the memory of a model whose last layers, the output layer
// first, are on one device that copies no weights from the host. The other
// layers are on the host.
func Split(f *gguf.File, o Options, outputs, layers int) (device, host Memory, err error) {
	if err := o.Validate(); err != nil {
		return device, host, err
	}
	m, err := newModel(f)
	if err != nil {
		return device, host, err
	}
	l, err := loadOf(o)
	if err != nil {
		return device, host, err
	}
	l.context = uint64(o.Context)
	if o.Context == 0 {
		l.context = m.train
	}
	l.outputs = uint64(max(outputs, 1))
	a := m.split(max(layers, 0), budget{1})
	u := m.usage(a, 1, l)
	d := u.devices[0]
	if d.Layers > 0 {
		d.Compute -= min(m.hostLargest(a), d.Compute)
	}
	return Memory{d.Weights, d.KV, d.Compute}, Memory{u.host.Weights, u.host.KV, u.host.Compute}, nil
}
