package rocm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// stepDown plans anew with less, after loading failed for lack of memory. The
// free memory is read again: it is not what it was.
func (srv *Server) stepDown(ctx context.Context, m *Machine, ladder *plan.Ladder, facts *gguf.File, failure error) error {
	step, ok := ladder.Next(srv.Plan)
	if !ok {
		return failure
	}
	log := m.settings.logger()
	log.Warn("trying again with less memory", "change", step.Reason, "cause", supervise.ErrOutOfMemory.Error())
	if err := srv.settle(ctx); err != nil {
		log.Warn("the gpu's memory did not settle", "cause", err.Error())
	}
	m.look()
	return srv.again(m, step.Options, facts, "memory ran out while loading: "+step.Reason, failure)
}

// withoutGPU plans for the CPU, after the server found no device where the plan
// has one. What was asked for is not passed over: a GPU that is required, or
// layers by number, leave the failure as it is.
func (srv *Server) withoutGPU(m *Machine, facts *gguf.File, failure error) error {
	o := srv.Plan.Request.Options
	if o.RequireGPU || o.Layers != plan.AutoLayers {
		return failure
	}
	o.Layers = 0
	const why = "running on the CPU: the GPU was chosen, but llama-server's GPU code did not start on it"
	m.settings.logger().Warn(why, "cause", failure.Error())
	return srv.again(m, o, facts, why, failure)
}

// again replaces the plan by one with other options and the reason for it.
func (srv *Server) again(m *Machine, o plan.Options, facts *gguf.File, why string, failure error) error {
	less := *m
	less.settings.Plan, less.settings.CacheLimit, less.settings.Projector = &o, 0, "" // they are in the options already
	p, err := less.makePlan(srv.Path, facts)
	if err != nil {
		return errors.Join(failure, err)
	}
	p.Reasons = append([]string{why}, p.Reasons...)
	srv.Plan, srv.devices = p, p.Chosen
	return nil
}

// longestText bounds, in tokens, for what texts embeddings and reranking are made
// ready by themselves: memory for computing grows with it.
const longestText = 8192

// textBatch is how many tokens are computed at once where a text has to be whole:
// llama-server refuses one that is longer for embeddings and reranking
// (server-context.cpp). 0 leaves it to llama-server or to the user's arguments.
func (s *Settings) textBatch(context, trained int) int {
	own := func(arg string) bool {
		return slices.Contains([]string{"-b", "--batch-size", "-ub", "--ubatch-size"}, arg)
	}
	if !s.Embeddings && !s.Reranking || slices.ContainsFunc(s.Args, own) {
		return 0
	}
	if context == 0 {
		context = trained
	}
	return min(context, longestText)
}

// makePlan decides arguments and environment.
func (m *Machine) makePlan(path string, facts *gguf.File) (*plan.Plan, error) {
	o, err := m.settings.planOptions()
	if err != nil {
		return nil, err
	}
	o.Adapters = slices.Clone(o.Adapters)
	if o.Batch == 0 {
		o.Batch = m.settings.textBatch(o.Context, facts.ContextLength())
	}
	req := plan.Request{
		Model: facts, ModelPath: path, Devices: m.Devices, Environ: m.settings.environ(),
		BundleTargets: m.Targets, HIPBLASLt: m.hipBLASLt, HostTotal: m.HostMemory, Barred: m.barred, Options: o,
	}
	for i, a := range o.Adapters {
		abs, err := filepath.Abs(a)
		if err != nil {
			return nil, fmt.Errorf("adapter %s: %w", a, err)
		}
		f, err := openAdapter(abs)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		req.Options.Adapters[i] = abs
		req.Adapters = append(req.Adapters, f)
	}
	if path := o.Projector; path != "" {
		if req.Options.Projector, req.Projector, err = openProjector(path); err != nil {
			return nil, err
		}
		defer func() { _ = req.Projector.Close() }()
	}
	if path := o.Draft; path != "" {
		if req.Options.Draft, err = modelFile(path); err != nil {
			return nil, err
		}
		if req.Draft, err = openModel(req.Options.Draft); err != nil {
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
