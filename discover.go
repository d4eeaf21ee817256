package rocm

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// Found is a model on disk and what would become of it on a Machine.
type Found struct {
	gguf.Found

	// Loadable says that the backend takes it, else Why says why not.
	Loadable bool   `json:"loadable"`
	Why      string `json:"why,omitempty"`
	// Fits says that all of it fits the GPU; Here is the plan in a few words.
	Fits bool   `json:"fits"`
	Here string `json:"here,omitempty"`
	// Needs is the expected memory in bytes if all were in one place, for
	// Context tokens; Layers of TotalLayers are expected on the GPU.
	Needs       uint64 `json:"needs,omitempty"`
	Layers      int    `json:"layers,omitempty"`
	TotalLayers int    `json:"total_layers,omitempty"`
	Context     int    `json:"context,omitempty"`
}

// Discover yields the models below dir, as gguf.Discover finds them, and whether
// they fit the machine.
func (m *Machine) Discover(ctx context.Context, dir string) iter.Seq[Found] {
	return func(yield func(Found) bool) {
		for f := range gguf.Discover(ctx, dir) {
			if !yield(m.judge(f)) {
				return
			}
		}
	}
}

// judge says whether a model can be loaded, and plans for it if so.
func (m *Machine) judge(f gguf.Found) Found {
	out := Found{Found: f}
	switch {
	case f.Err != nil:
		out.Why = f.Err.Error()
	case f.Format == "safetensors":
		out.Why = "safetensors: convert it with llama.cpp's convert_hf_to_gguf.py"
	case f.Kind == "mmproj" || f.Architecture == "clip":
		out.Why = "a projector: give it with --mmproj beside its model"
	case f.Kind == "adapter":
		out.Why = "an adapter: give it with --adapter beside its model"
	case f.Kind != "model":
		out.Why = fmt.Sprintf("no model: it holds a %.80q", f.Kind)
	}
	if out.Why != "" {
		return out
	}
	out.Loadable = true
	p, err := m.Plan(f.Path)
	switch {
	case errors.Is(err, plan.ErrDoesNotFit):
		out.Here = "too large for this machine"
	case err != nil:
		out.Loadable, out.Why = false, err.Error()
	default:
		out.Fits, out.Here, out.Needs = p.Fits, p.Verdict(), p.Needs
		out.Layers, out.TotalLayers, out.Context = p.Layers, p.TotalLayers, p.Context
	}
	return out
}
