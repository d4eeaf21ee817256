// Package modelbench measures how fast llama-server runs a model on this machine with
// each backend that works here, through the server that ships.
package modelbench

import (
	"errors"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/speed"
)

// overrideOf1100 makes a gfx1101 card run the code for gfx1100.
const overrideOf1100 = "11.0.0"

// largeBatch is the physical batch that is compared with the default.
const largeBatch = 2048

// Cases returns the settings to measure for a model on a machine, and the device whose
// record they belong to, nil without a GPU: for each backend that has a plan the default
// settings, and unless quick is set, with other settings that matter. With HIP on a
// gfx1101 card these are also the code for gfx1100, and rocBLAS's own kernels where the
// bundle has hipBLASLt's. skipped has the reason for each backend without a plan.
func Cases(m *machine.Machine, path string, f *gguf.File, o plan.Options, quick bool) (cases []speed.Settings, device *gpu.Device, skipped map[plan.Backend]error) {
	skipped = map[plan.Backend]error{}
	backends := []plan.Backend{plan.BackendHIP, plan.BackendVulkan, plan.BackendCPU}
	if o.Backend != "" && o.Backend != plan.BackendAuto {
		backends = []plan.Backend{o.Backend}
	}
	for _, b := range backends {
		o.Backend = b
		if b == plan.BackendCPU && o.Devices.Required {
			continue
		}
		p, err := m.PlanFile(path, f, o)
		if err != nil {
			skipped[b] = err
			continue
		}
		if device == nil && p.GPU {
			device = &p.Chosen[0]
		}
		cases = append(cases, casesOf(p, quick)...)
	}
	return cases, device, skipped
}

// casesOf returns the settings to measure with the backend of a plan.
func casesOf(p *plan.Plan, quick bool) []speed.Settings {
	defaults := speed.Settings{Backend: string(p.Backend), FlashAttention: true, Batch: speed.DefaultBatch, HIPBLASLt: slices.Contains(p.Request.HIPBLASLt, p.Target)}
	out := []speed.Settings{defaults}
	if quick || p.Backend == plan.BackendCPU {
		return out
	}
	noFlash, large := defaults, defaults
	noFlash.FlashAttention, large.Batch = false, largeBatch
	out = append(out, noFlash, large)
	if defaults.HIPBLASLt {
		own := defaults
		own.HIPBLASLt = false
		out = append(out, own)
	}
	if p.Backend == plan.BackendHIP && p.Target == gfx.GFX1101 && slices.Contains(p.Request.BundleTargets, gfx.GFX1100) {
		related := defaults
		related.Override, related.HIPBLASLt = overrideOf1100, slices.Contains(p.Request.HIPBLASLt, gfx.GFX1100)
		out = append(out, related)
	}
	return out
}

// ErrMemory reports that the machine's memory became short, so that the measurement
// was stopped.
var ErrMemory = errors.New("memory became short")
