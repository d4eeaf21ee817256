package rocm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/host"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Plan returns what Load would do with the model at path. It loads nothing; where the
// plan depends on Vulkan, llama-server is asked for Vulkan's devices. To plan many
// models, use runtime/machine.
func Plan(path string, s Settings) (*plan.Plan, error) {
	ctx := context.Background()
	if err := s.Validate(); err != nil {
		return nil, err
	}
	path, f, err := machine.OpenModel(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	m, err := DetectMachine(ctx, s)
	if err != nil {
		return nil, err
	}
	o := s.planOptions(f)
	if err := m.ReadVulkan(ctx, f, o); err != nil {
		return nil, err
	}
	return m.PlanFile(path, f, o)
}

// DetectMachine reads the machine, with the bundle or the server of the settings. It
// asks the server for its version and its devices.
func DetectMachine(ctx context.Context, s Settings) (*machine.Machine, error) {
	if s.Server == "" {
		return machine.Detect(s.Bundle, s.machine())
	}
	b, facts, err := s.findBundle(ctx)
	if err != nil {
		return nil, err
	}
	m := machine.New(s.machine())
	s.useBundle(m, b, facts)
	return m, b.Close()
}

// Launch finds the bundle, plans, starts llama-server and waits until it is ready:
// Prepare and Start together. The caller closes the server.
func Launch(ctx context.Context, path string, s Settings) (*Server, error) {
	l, err := Prepare(ctx, path, s)
	if err != nil {
		return nil, err
	}
	return l.Start(ctx)
}

// load starts llama-server. A start that fails for a reason that a smaller plan
// would cure is repeated with a smaller plan.
func (l *Prepared) load(ctx context.Context, flags *supervise.Flags) error {
	for ladder := plan.NewLadder(l.srv.Plan.Request.Options); ; {
		spec := l.spec()
		spec.Flags = flags
		child, err := supervise.Start(ctx, spec)
		if err == nil {
			l.srv.Child = child
			return nil
		}
		failure := fmt.Errorf("load %s: %w", l.srv.Path, err)
		switch {
		case ctx.Err() != nil:
			return failure
		case l.srv.Plan.GPU && isBackendFailure(err):
			err = l.useNextBackend(ctx, err, failure)
		case errors.Is(err, supervise.ErrHostMemory):
			return failure // less memory on the GPU means more in the host
		case errors.Is(err, supervise.ErrOutOfMemory):
			err = l.retryWithLess(ctx, ladder, failure)
		default:
			return failure
		}
		if err != nil {
			return err
		}
		if err := l.ensureUnpacked(ctx); err != nil {
			return errors.Join(failure, err)
		}
	}
}

// retryWithLess plans again with less memory, after loading ran out of memory. It
// reads the free memory again, which has changed.
func (l *Prepared) retryWithLess(ctx context.Context, ladder *plan.Ladder, failure error) error {
	step, ok := ladder.Next(l.srv.Plan)
	if !ok {
		return failure
	}
	log := l.settings.logger()
	log.Warn("retrying with less memory", "change", step.Reason, "cause", supervise.ErrOutOfMemory.Error())
	if err := l.srv.waitVRAMFree(ctx); err != nil {
		log.Warn("the GPU's memory was not freed in time", "cause", err.Error())
	}
	l.machine.Refresh()
	return l.replan(step.Options, "memory ran out while loading: "+step.Reason, failure)
}

// replan replaces the plan by one with other options.
func (l *Prepared) replan(o plan.Options, reason string, failure error) error {
	p, err := l.machine.PlanFile(l.srv.Path, l.Header, o)
	if err != nil {
		return errors.Join(failure, err)
	}
	p.Reasons = append([]string{reason}, p.Reasons...)
	l.srv.setPlan(p)
	return nil
}

// envMediaMarker sets the text that llama-server replaces by a medium in a prompt
// (server-common.cpp). llama-server's default differs at each start, and a request
// that is sent again to a new process would have the old one.
const envMediaMarker = "LLAMA_MEDIA_MARKER"

// spec returns how to run the current plan.
func (l *Prepared) spec() supervise.Spec {
	s, srv := &l.settings, l.srv
	current := srv.CurrentPlan()
	restart := s.Restart.policy()
	if len(current.Chosen) > 0 {
		restart.BeforeRestart = srv.waitVRAMFree
		restart.Revise = (&revision{prepared: l}).revise
	}
	return supervise.Spec{
		Argv: srv.program.Argv, Args: append(slices.Clone(current.Args), s.serverArgs(srv.Path)...),
		Env: append(slices.Concat(threadEnv(os.Environ(), host.ReadCPUs("/")), current.Env), envMediaMarker+"="+srv.mediaMarker), Dir: srv.program.Dir, ExtraFiles: srv.program.LeaseFiles(),
		TCPAddr: s.TCP, ModelBytes: l.size, CPUOnly: !current.GPU || current.Software(), Restart: restart, Log: s.logger(), OnEvent: s.onEvent(),
		LoadingMemory: loadingMemory(current, l.size), HostMemory: hostMemory(s.sysRoot()), StartTimeout: s.Timeouts.Start, DrainTimeout: s.Timeouts.Drain, StopTimeout: s.Timeouts.Stop, StallTimeout: stallTimeout(current, s.Timeouts.Stall),
	}
}

// serverArgs returns the arguments that come from the settings and not from the
// plan.
func (s *Settings) serverArgs(model string) []string {
	args := []string{"--alias", s.alias(model), "--offline"}
	for _, f := range []struct{ flag, path string }{{"--chat-template-file", s.ChatTemplateFile}, {"--slot-save-path", s.SlotDir}} {
		if f.path == "" {
			continue
		}
		if abs, err := filepath.Abs(f.path); err == nil {
			args = append(args, f.flag, abs)
		}
	}
	if s.Embeddings {
		args = append(args, "--embeddings")
	}
	if s.Reranking {
		args = append(args, "--reranking")
	}
	if s.Pooling != "" {
		args = append(args, "--pooling", s.Pooling)
	}
	if s.Metrics {
		args = append(args, "--metrics")
	}
	return append(args, s.Args...)
}

// alias returns the model's name in the server's answers. llama-server takes it for
// a list, splits it at commas, sorts it and strips spaces (--alias in
// common/arg.cpp), and there is no way to quote it.
func (s *Settings) alias(model string) string {
	if s.Alias != "" {
		return s.Alias
	}
	name := strings.TrimSpace(strings.ReplaceAll(strings.TrimSuffix(filepath.Base(model), ".gguf"), ",", "-"))
	if name == "" {
		return "model"
	}
	return name
}

// loadingMemory returns the limit of the memory that llama-server may allocate while
// it loads a model of size bytes: one and a half times what the plan expects on the
// host, the model once more (weights that the CPU's kernels repack are copied), and
// 2 GiB. Without it, a chat template can fill the machine's memory. There is no
// limit for users who overcommit.
func loadingMemory(p *plan.Plan, size int64) int64 {
	if p.Request.Options.Overcommit {
		return 0
	}
	expected := int64(min(p.Host.Used(), math.MaxInt64/4))
	return expected + expected/2 + size + 2<<30
}

// hostMemory returns a function that reads the main memory that this program may use.
func hostMemory(root string) func() (usable, available uint64) {
	return func() (usable, available uint64) {
		m := host.ReadMemory(root)
		return m.Usable(), m.Available
	}
}

// partialStallTimeout is how long requests may run without a token where the CPU
// computes a part of the model: a batch of a prompt then takes minutes, and work
// of the CPU proves nothing, because a GPU that hangs may keep the CPU busy, too.
const partialStallTimeout = 10 * time.Minute

func stallTimeout(p *plan.Plan, set time.Duration) time.Duration {
	if set == 0 && p.GPU && p.WholeLayers < p.TotalLayers {
		return partialStallTimeout
	}
	return set
}

func (s *Settings) sysRoot() string {
	if s.SysRoot == "" {
		return "/"
	}
	return s.SysRoot
}
