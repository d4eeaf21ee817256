package rocm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// stepDown plans anew with less, after loading failed for lack of memory. The
// free memory is read again: it is not what it was.
func (srv *Server) stepDown(ctx context.Context, s *Settings, ladder *plan.Ladder, facts *gguf.File, targets []gfx.Target, failure error) error {
	step, ok := ladder.Next(srv.Plan)
	if !ok {
		return failure
	}
	s.logger().Warn("trying again with less memory", "change", step.Reason, "cause", supervise.ErrOutOfMemory.Error())
	if err := srv.settle(ctx); err != nil {
		s.logger().Warn("the gpu's memory did not settle", "cause", err.Error())
	}
	all, err := srv.sysfs.Devices()
	if err != nil && !errors.Is(err, gpu.ErrNoDriver) {
		s.logger().Warn("not every gpu could be read", "cause", err.Error())
	}
	less := *s
	less.Plan = &step.Options
	p, err := makePlan(&less, srv.Path, facts, targets, all)
	if err != nil {
		return errors.Join(failure, err)
	}
	p.Reasons = append([]string{"memory ran out while loading: " + step.Reason}, p.Reasons...)
	srv.Plan, srv.devices = p, chosen(all, p)
	return nil
}

// Preview plans what Launch would do with the model at path, and starts nothing.
func Preview(path string, s Settings) (*plan.Plan, error) {
	path, err := modelFile(path)
	if err != nil {
		return nil, err
	}
	facts, err := openFacts(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = facts.Close() }()
	var targets []gfx.Target
	found, err := FindBundle(s.Bundle)
	switch {
	case err == nil:
		targets = found.Targets()
		_ = found.Close()
	case !errors.Is(err, ErrNoBundle):
		return nil, err
	default:
		s.logger().Warn("planned without a bundle: every target counts as missing", "cause", err.Error())
	}
	devices, err := gpu.NewFS("/").Devices()
	if err != nil && !errors.Is(err, gpu.ErrNoDriver) {
		s.logger().Warn("not every gpu could be read", "cause", err.Error())
	}
	return makePlan(&s, path, facts, targets, devices)
}

// makePlan decides arguments and environment.
func makePlan(s *Settings, path string, facts *gguf.File, targets []gfx.Target, devices []gpu.Device) (*plan.Plan, error) {
	o, err := s.planOptions()
	if err != nil {
		return nil, err
	}
	req := plan.Request{
		Model: facts, ModelPath: path, Devices: devices, Environ: environ(),
		BundleTargets: targets, HostTotal: hostMemory(), Options: o,
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
	for _, extra := range []struct {
		path *string
		into **gguf.File
	}{{&req.Options.Projector, &req.Projector}, {&req.Options.Draft, &req.Draft}} {
		if *extra.path == "" {
			continue
		}
		if *extra.path, err = modelFile(*extra.path); err != nil {
			return nil, err
		}
		if *extra.into, err = openFacts(*extra.path); err != nil {
			return nil, err
		}
		defer func() { _ = (*extra.into).Close() }()
	}
	p, err := plan.Make(req)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return p, nil
}

// chosen are the devices that the plan uses.
func chosen(all []gpu.Device, p *plan.Plan) []gpu.Device {
	var out []gpu.Device
	for _, d := range all {
		for _, e := range p.Devices {
			if strings.Contains(e.Name, d.PCI) {
				out = append(out, d)
			}
		}
	}
	return out
}

// needed are the targets of the bundle whose files must be unpacked. Without a
// GPU none is needed beyond what every machine needs.
func needed(targets []gfx.Target, devices []gpu.Device) []gfx.Target {
	out := []gfx.Target{}
	for _, t := range targets {
		for _, d := range devices {
			if d.Target == t {
				out = append(out, t)
				break
			}
		}
	}
	if len(out) == 0 && len(devices) > 0 {
		return nil // an override is at work: take all
	}
	return out
}
