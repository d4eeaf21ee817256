package machine

import (
	"fmt"
	"path/filepath"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// Plan plans the model at path, a GGUF file or a directory with one model, and
// starts nothing.
func (m *Machine) Plan(path string, o plan.Options) (*plan.Plan, error) {
	path, err := FindModel(path)
	if err != nil {
		return nil, err
	}
	f, err := OpenModel(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return m.PlanFile(path, f, o)
}

// PlanFile plans a model whose header is open already. It makes the paths in o
// absolute and reads the headers of the files that are loaded beside the model.
func (m *Machine) PlanFile(path string, f *gguf.File, o plan.Options) (*plan.Plan, error) {
	o.Adapters = slices.Clone(o.Adapters)
	req := plan.Request{
		Model: f, ModelPath: path, Devices: m.Devices, Environ: m.environ(), BundleTargets: m.Targets,
		HIPBLASLt: m.hipBLASLt, HostTotal: m.HostMemory, NoGPU: m.noGPU, Options: o,
	}
	for i, adapter := range o.Adapters {
		abs, err := filepath.Abs(adapter)
		if err != nil {
			return nil, fmt.Errorf("adapter %s: %w", adapter, err)
		}
		f, err := openAdapter(abs)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		req.Options.Adapters[i] = abs
		req.Adapters = append(req.Adapters, f)
	}
	if o.Projector != "" {
		var err error
		if req.Options.Projector, req.Projector, err = openProjector(o.Projector); err != nil {
			return nil, err
		}
		defer func() { _ = req.Projector.Close() }()
	}
	if o.Draft != "" {
		var err error
		if req.Options.Draft, err = FindModel(o.Draft); err != nil {
			return nil, err
		}
		if req.Draft, err = OpenModel(req.Options.Draft); err != nil {
			return nil, err
		}
		defer func() { _ = req.Draft.Close() }()
	}
	p, err := plan.Make(req)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return p, nil
}
