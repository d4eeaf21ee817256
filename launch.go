package rocm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/host"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Plan returns what Load would do with the model at path, and starts nothing. To
// plan many models, use runtime/machine.
func Plan(path string, s Settings) (*plan.Plan, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	path, err := machine.FindModel(path)
	if err != nil {
		return nil, err
	}
	f, err := machine.OpenModel(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	m, err := machine.Detect(s.Bundle, s.machine())
	if err != nil {
		return nil, err
	}
	return m.PlanFile(path, f, s.planOptions(f))
}

// Launch finds the bundle, plans, starts llama-server and waits until it is ready.
// The caller closes the server.
func Launch(ctx context.Context, path string, s Settings) (*Server, error) {
	srv, err := startServer(ctx, path, s)
	if ctx.Err() != nil {
		err = withCause(ctx, err)
	}
	return srv, err
}

func startServer(ctx context.Context, path string, s Settings) (*Server, error) {
	if !supported() {
		return nil, ErrUnsupportedPlatform
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	path, err := machine.FindModel(path)
	if err != nil {
		return nil, err
	}
	l, err := prepare(path, s)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if err := l.plan(); err != nil {
		return nil, err
	}
	if err := l.ensureUnpacked(ctx); err != nil {
		return nil, err
	}
	flags, err := l.srv.program.Flags(ctx)
	if err == nil {
		err = checkArgs(flags, s.Args)
	}
	if err == nil {
		err = l.load(ctx, flags)
	}
	if err != nil {
		return nil, errors.Join(err, l.srv.program.Close())
	}
	return l.srv, nil
}

// launch is one call of Launch: what it reads, and the server that it makes.
type launch struct {
	settings Settings
	bundle   *locate.Bundle
	machine  *machine.Machine
	header   *gguf.File
	srv      *Server
}

// prepare reads the model's header, the machine and, at the same time, the
// bundle's manifest.
func prepare(path string, s Settings) (*launch, error) {
	l := &launch{settings: s, srv: &Server{Path: path, sysfs: gpu.NewFS(s.sysRoot()), mediaMarker: "<__media_" + rand.Text() + "__>"}}
	var bundleErr error
	var reading sync.WaitGroup
	reading.Go(func() { l.bundle, bundleErr = locate.Find(s.Bundle) })
	var err error
	if l.header, err = machine.OpenModel(path); err == nil {
		l.machine = machine.New(s.machine())
	}
	reading.Wait()
	if err == nil {
		err = bundleErr
	}
	if err != nil {
		l.close()
		return nil, err
	}
	l.machine.UseBundle(l.bundle)
	l.srv.Info, l.srv.Origin = modelInfo(l.header), l.bundle.Origin
	return l, nil
}

// close closes the files that were read.
func (l *launch) close() {
	if l.header != nil {
		_ = l.header.Close()
	}
	if l.bundle != nil {
		_ = l.bundle.Close()
	}
}

// plan makes the first plan and logs its reasons.
func (l *launch) plan() error {
	p, err := l.machine.PlanFile(l.srv.Path, l.header, l.settings.planOptions(l.header))
	if err != nil {
		return err
	}
	l.srv.Plan, l.srv.devices = p, p.Chosen
	log := l.settings.logger()
	if p.Fallback != "" && l.settings.Layers != plan.CPUOnly {
		log.Warn("running on the CPU", "reason", p.Fallback)
	}
	for _, reason := range p.Reasons {
		log.Info("plan", "reason", reason)
	}
	return nil
}

// ensureUnpacked unpacks the files that the plan needs, unless they are unpacked
// already: a later plan may be for a card of another target.
func (l *launch) ensureUnpacked(ctx context.Context) error {
	targets := []gfx.Target{} // none besides the files that every machine needs
	if l.srv.Plan.GPU {
		targets = append(targets, l.srv.Plan.Target)
	}
	previous := l.srv.program
	if previous != nil && !slices.ContainsFunc(targets, func(t gfx.Target) bool { return !slices.Contains(previous.Targets, t) }) {
		return nil
	}
	program, err := l.bundle.Unpack(ctx, locate.UnpackOptions{
		Targets: targets, LibraryDirs: l.machine.LibraryDirs, Log: l.settings.logger(), Progress: l.settings.onUnpack(),
	})
	if err != nil {
		return err
	}
	l.srv.program, l.srv.BundleDir = program, program.Dir
	if previous == nil {
		return nil
	}
	return previous.Close()
}

// checkArgs rejects the user's flags that llama-server does not have.
func checkArgs(flags *supervise.Flags, args []string) error {
	if unknown := flags.Unknown(args); len(unknown) > 0 {
		return invalidOption("this llama-server has no %s; correct or remove these flags in Settings.Args", strings.Join(unknown, ", "))
	}
	return nil
}

// load starts llama-server. A start that fails for a reason that a smaller plan
// would cure is repeated with a smaller plan.
func (l *launch) load(ctx context.Context, flags *supervise.Flags) error {
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
		case errors.Is(err, supervise.ErrNoDevice) && l.srv.Plan.GPU:
			err = l.retryOnCPU(failure)
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
func (l *launch) retryWithLess(ctx context.Context, ladder *plan.Ladder, failure error) error {
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

// retryOnCPU plans again for the CPU, after llama-server found no device where the
// plan has one. It returns the failure where the user required a GPU or a number
// of layers.
func (l *launch) retryOnCPU(failure error) error {
	o := l.srv.Plan.Request.Options
	if o.Devices.Required || o.Layers != plan.AutoLayers {
		return failure
	}
	o.Layers = plan.CPUOnly
	const reason = "running on the CPU: the GPU was chosen, but llama-server's GPU code did not start on it"
	l.settings.logger().Warn(reason, "cause", failure.Error())
	return l.replan(o, reason, failure)
}

// replan replaces the plan by one with other options.
func (l *launch) replan(o plan.Options, reason string, failure error) error {
	p, err := l.machine.PlanFile(l.srv.Path, l.header, o)
	if err != nil {
		return errors.Join(failure, err)
	}
	p.Reasons = append([]string{reason}, p.Reasons...)
	l.srv.Plan, l.srv.devices = p, p.Chosen
	return nil
}

// maxTextBatch limits the length of the texts, in tokens, that an embedding or
// reranking server is ready for by default: memory for computing grows with it.
const maxTextBatch = 8192

// planOptions returns the options of the plan. For embeddings and reranking they
// include a batch for the longest text, because llama-server rejects a text that
// is longer than one batch (server-context.cpp).
func (s *Settings) planOptions(header *gguf.File) plan.Options {
	o := s.Options
	isBatchFlag := func(arg string) bool {
		return slices.Contains([]string{"-b", "--batch-size", "-ub", "--ubatch-size"}, arg)
	}
	if o.Batch != 0 || !s.Embeddings && !s.Reranking || slices.ContainsFunc(s.Args, isBatchFlag) {
		return o
	}
	context := o.Context
	if context == 0 {
		context = header.ContextLength()
	}
	o.Batch = min(context, maxTextBatch)
	return o
}

// envMediaMarker sets the text that llama-server replaces by a medium in a prompt
// (server-common.cpp). llama-server's default differs at each start, and a request
// that is sent again to a new process would have the old one.
const envMediaMarker = "LLAMA_MEDIA_MARKER"

// spec returns how to run the current plan.
func (l *launch) spec() supervise.Spec {
	s, srv := &l.settings, l.srv
	restart := s.Restart.policy()
	if len(srv.devices) > 0 {
		restart.BeforeRestart = srv.waitVRAMFree
	}
	return supervise.Spec{
		Argv: srv.program.Argv, Args: append(slices.Clone(srv.Plan.Args), s.serverArgs(srv.Path)...),
		Env: append(slices.Concat(threadEnv(os.Environ(), host.ReadCPUs("/")), srv.Plan.Env), envMediaMarker+"="+srv.mediaMarker), Dir: srv.program.Dir, ExtraFiles: srv.program.LeaseFiles(),
		TCPAddr: s.TCP, ModelBytes: l.header.Size(), CPUOnly: !srv.Plan.GPU, Restart: restart, Log: s.logger(), OnEvent: s.onEvent(),
		StartTimeout: s.Timeouts.Start, DrainTimeout: s.Timeouts.Drain, StopTimeout: s.Timeouts.Stop, StallTimeout: stallTimeout(srv.Plan, s.Timeouts.Stall),
	}
}

// serverArgs returns the arguments that come from the settings and not from the
// plan.
func (s *Settings) serverArgs(model string) []string {
	alias := s.Alias
	if alias == "" {
		alias = strings.TrimSuffix(filepath.Base(model), ".gguf")
	}
	args := []string{"--alias", alias, "--offline"}
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
	return append(args, s.Args...)
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
