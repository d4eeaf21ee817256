package plan

import (
	"fmt"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

// defaultBatch is llama.cpp's physical batch (n_ubatch).
const defaultBatch = 512

// estimate fills the memory figures and the expected number of layers.
func (p *Plan) estimate(m *model, devices []gpu.Device) error {
	o := p.Request.Options
	p.Slots = o.Slots
	if p.Slots == 0 {
		p.Slots = 4
	}
	p.Context = o.Context
	if p.Context == 0 {
		p.Context = m.train
	}
	typeK, err := kvType(o.KVTypeK)
	if err != nil {
		return err
	}
	typeV, err := kvType(o.KVTypeV)
	if err != nil {
		return err
	}
	batch := uint64(o.Batch)
	if batch == 0 {
		batch = defaultBatch
	}
	cells := (uint64(p.Context) + 255) &^ 255
	p.Host = Estimate{Name: "host", Weights: m.input, Total: p.Request.HostTotal}
	compute := batch*m.vocab*4 + batch*m.embd*4*8
	margin := o.Margin
	if margin == 0 {
		margin = DefaultMargin
	}
	for _, d := range devices {
		p.Devices = append(p.Devices, Estimate{
			Name: d.Name + " " + d.PCI, Margin: margin, Free: d.VRAMFree(), Total: d.VRAMTotal, Compute: compute,
		})
	}
	// Layers go to the devices from the back, the output layer first.
	place := func(bytesW, bytesKV uint64) bool {
		for i := len(p.Devices) - 1; i >= 0; i-- {
			e := &p.Devices[i]
			if e.Used()+bytesW+bytesKV+e.Margin <= e.Free {
				e.Weights += bytesW
				e.KV += bytesKV
				e.Layers++
				return true
			}
		}
		return false
	}
	onGPU := len(devices) > 0 && place(m.output, 0)
	if onGPU {
		p.Layers++
	} else if !m.tied {
		p.Host.Weights += m.output
	}
	for i := range slices.Backward(m.layer) {
		kv := m.layer[i].kvBytes(cells, typeK, typeV)
		onGPU = onGPU && place(m.layer[i].weights, kv)
		if onGPU {
			p.Layers++
			continue
		}
		p.Host.Weights += m.layer[i].weights
		p.Host.KV += kv
		p.Host.Layers++
	}
	if p.Layers < p.TotalLayers {
		p.Host.Compute = compute
	}
	p.Fits = p.GPU && p.Layers == p.TotalLayers
	if p.GPU {
		p.Reasons = append(p.Reasons, fmt.Sprintf("%d of %d layers are expected on the GPU", p.Layers, p.TotalLayers))
	}
	if p.Host.Total > 0 && p.Host.Used() > p.Host.Total {
		return fmt.Errorf("%w: %s needed on the host, which has %s", ErrDoesNotFit, size(p.Host.Used()), size(p.Host.Total))
	}
	return nil
}

func hasTarget(have []gfx.Target, sel selection) bool {
	return slices.Contains(have, sel.target)
}
