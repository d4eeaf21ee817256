package machine

import (
	"context"
	"errors"
	"iter"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// FoundModel is a model on disk and the outcome of planning it.
type FoundModel struct {
	gguf.Found

	// Loadable reports whether the backend can load the file; otherwise Why has
	// the reason.
	Loadable bool   `json:"loadable"`
	Why      string `json:"why,omitempty"`
	// Fits reports whether the whole model fits on the GPU. Verdict is the plan in
	// a few words.
	Fits    bool   `json:"fits"`
	Verdict string `json:"verdict,omitempty"`
	// Needs is the expected memory in bytes, if all of it were in one place, for
	// Context tokens. Layers of TotalLayers are expected on the GPU.
	Needs       uint64 `json:"needs,omitempty"`
	Layers      int    `json:"layers,omitempty"`
	TotalLayers int    `json:"total_layers,omitempty"`
	Context     int    `json:"context,omitempty"`
}

// Discover yields the models below dir, as [gguf.Discover] finds them, each with
// the outcome of planning it with o.
func (m *Machine) Discover(ctx context.Context, dir string, o plan.Options) iter.Seq[FoundModel] {
	return func(yield func(FoundModel) bool) {
		for f := range gguf.Discover(ctx, dir) {
			if !yield(m.assess(f, o)) {
				return
			}
		}
	}
}

// assess reports whether a file can be loaded, and plans it if so.
func (m *Machine) assess(f gguf.Found, o plan.Options) FoundModel {
	out := FoundModel{Found: f}
	switch {
	case f.Err != nil:
		out.Why = strings.TrimPrefix(withRemedy(f.Err, convertModel).Error(), f.Path+": ")
	case f.Format == "safetensors":
		out.Why = "safetensors: convert it with llama.cpp's " + convertModel
	case f.Kind == gguf.KindProjector:
		out.Why = "a projector: use it with --mmproj and its model"
	case f.Kind == gguf.KindAdapter:
		out.Why = "an adapter: use it with --adapter and its model"
	default:
		out.Why = notModel(f.Kind)
	}
	if out.Why != "" {
		return out
	}
	out.Loadable = true
	p, err := m.Plan(f.Path, o)
	switch {
	case errors.Is(err, plan.ErrDoesNotFit):
		out.Verdict = "too large for this machine"
	case err != nil:
		out.Loadable, out.Why = false, err.Error()
	default:
		out.Fits, out.Verdict, out.Needs = p.Fits, p.Verdict(), p.Needs
		out.Layers, out.TotalLayers, out.Context = p.Layers, p.TotalLayers, p.Context
	}
	return out
}
