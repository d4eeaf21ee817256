package machine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// Plan plans the model at path, a GGUF file or a directory with one model. It loads
// nothing; see ReadVulkan for what it may start.
func (m *Machine) Plan(path string, o plan.Options) (*plan.Plan, error) {
	path, f, err := OpenModel(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if err := m.ReadVulkan(context.Background(), f, o); err != nil {
		return nil, err
	}
	return m.PlanFile(path, f, o)
}

// PlanFile plans a model whose header is open already, and starts nothing. It makes the paths in o
// absolute and reads the headers of the files that are loaded beside the model. Its
// error joins a [plan.OptionError] for each option and file that is wrong.
func (m *Machine) PlanFile(path string, f *gguf.File, o plan.Options) (*plan.Plan, error) {
	o.Adapters = slices.Clone(o.Adapters)
	req := m.request(f, o)
	req.ModelPath = path
	closeFiles, err := openCompanions(&req)
	defer closeFiles()
	if err := errors.Join(o.Validate(), err); err != nil {
		return nil, err
	}
	p, err := plan.Make(req)
	if err != nil && (o.Backend == plan.BackendVulkan || o.Devices.ID != "") && m.vulkan.err != nil {
		err = fmt.Errorf("%w (%w)", err, m.vulkan.err)
	}
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	if m.vulkan.err != nil && p.Backend != plan.BackendVulkan {
		text, _, _ := strings.Cut(m.vulkan.err.Error(), "\n") // without the log of a crash
		p.Reasons = append(p.Reasons, "Vulkan cannot be used: "+text)
	}
	return p, nil
}

// request returns the plan's request without the files.
func (m *Machine) request(f *gguf.File, o plan.Options) plan.Request {
	return plan.Request{
		Model: f, Devices: m.Devices, Environ: m.environ(), BundleTargets: m.Targets,
		HIPBLASLt: m.hipBLASLt, Vulkan: m.HasVulkan, HostTotal: m.HostMemory, NoGPU: m.noGPU, Verdicts: m.verdicts(f), Options: o,
	}
}

// openCompanions reads the headers of the files that are loaded beside the model
// into req, and makes their paths absolute. The caller calls closeFiles, also after
// an error.
func openCompanions(req *plan.Request) (closeFiles func(), err error) {
	var open []*gguf.File
	var errs []error
	add := func(option string, f *gguf.File, err error) {
		if err != nil {
			errs = append(errs, &plan.OptionError{Option: option, Err: err})
			return
		}
		open = append(open, f)
	}
	o := &req.Options
	architecture := ""
	if req.Model != nil {
		architecture = req.Model.Architecture()
	}
	for i := range o.Adapters {
		path, f, err := openAdapter(o.Adapters[i], architecture)
		add("Adapters", f, err)
		o.Adapters[i], req.Adapters = path, append(req.Adapters, f)
	}
	if o.Projector != "" {
		o.Projector, req.Projector, err = openProjector(o.Projector)
		add("Projector", req.Projector, err)
	}
	if o.Draft != "" {
		o.Draft, req.Draft, err = openModel(o.Draft)
		add("Draft", req.Draft, err)
	}
	return func() {
		for _, f := range open {
			_ = f.Close()
		}
	}, errors.Join(errs...)
}

// CheckCompanions reads the headers of the files that are loaded beside a model whose
// header is f, or nil where the model cannot be read. Its error joins a
// [plan.OptionError] for each file that is wrong.
func CheckCompanions(f *gguf.File, o plan.Options) error {
	o.Adapters = slices.Clone(o.Adapters)
	closeFiles, err := openCompanions(&plan.Request{Model: f, Options: o})
	closeFiles()
	return err
}

// absolute returns the absolute path of a file that has a purpose.
func absolute(path string) (string, error) {
	if path == "" { // filepath.Abs would return the current directory
		return "", fmt.Errorf("%w: the path is empty", ErrModelFile)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrModelFile, path, err)
	}
	return abs, nil
}
