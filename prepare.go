package rocm

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Prepared is a start of llama-server that has been checked and planned. Its owner
// calls Start or Close, once.
type Prepared struct {
	// Path is the model's file.
	Path string
	// Header is the header of the model. Start and Close close it.
	Header *gguf.File

	settings Settings
	size     int64 // of the model, in bytes
	bundle   *locate.Bundle
	machine  *machine.Machine
	srv      *Server
}

// Prepare does everything that Launch does before it starts llama-server for the
// model: it checks the settings, finds the bundle, reads the headers of all files
// that the server loads, and plans. If there are Settings.Args, it also has
// llama-server parse its whole command line, and so it does where there is a chat
// template in a file, which llama-server then tries.
//
// The error joins a [plan.OptionError], whose Option is a field of [Settings], for
// each setting that is wrong.
func Prepare(ctx context.Context, path string, s Settings) (*Prepared, error) {
	p, err := prepare(ctx, path, s)
	if ctx.Err() != nil {
		err = withCause(ctx, err)
	}
	return p, err
}

func prepare(ctx context.Context, path string, s Settings) (*Prepared, error) {
	if !supported() {
		return nil, ErrUnsupportedPlatform
	}
	if err := s.useStore(ctx, path); err != nil {
		return nil, err
	}
	l := &Prepared{settings: s, srv: &Server{sysfs: gpu.NewFS(s.sysRoot()), mediaMarker: "<__media_" + rand.Text() + "__>"}}
	// Whatever is wrong, the rest is checked as well: a person corrects all of it at once.
	templateErr := s.checkTemplate()
	err := errors.Join(s.validateServer(), templateErr)
	readErr := l.read(ctx, path)
	if readErr == nil {
		readErr = l.plan(ctx) // planning validates the options, and the files in them
	} else {
		readErr = errors.Join(s.Options.Validate(), readErr, machine.CheckCompanions(l.Header, s.Options))
	}
	err = errors.Join(readErr, err)
	if len(s.Args) > 0 || s.ChatTemplateFile != "" && templateErr == nil {
		err = errors.Join(err, l.checkArgs(ctx, err == nil, templateErr == nil))
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// read reads the model's header, the machine and, at the same time, the bundle's
// manifest.
func (l *Prepared) read(ctx context.Context, path string) error {
	var bundleErr error
	var facts locate.ServerFacts
	var reading sync.WaitGroup
	reading.Go(func() { l.bundle, facts, bundleErr = l.settings.findBundle(ctx) })
	var err error
	if l.Path, l.Header, err = machine.OpenModel(path); err == nil {
		l.size = l.Header.Size()
	}
	l.machine = machine.New(l.settings.machine())
	reading.Wait()
	if bundleErr == nil {
		l.settings.useBundle(l.machine, l.bundle, facts)
	}
	if err = errors.Join(err, bundleErr); err != nil {
		return err
	}
	l.srv.Path, l.srv.Info, l.srv.Origin = l.Path, modelInfo(l.Header), l.bundle.Origin
	return nil
}

// findBundle returns the bundle, or the llama-server that the settings name and what
// it says of itself.
func (s *Settings) findBundle(ctx context.Context) (b *locate.Bundle, facts locate.ServerFacts, err error) {
	switch {
	case s.Server != "" && s.Bundle != "":
		return nil, facts, errBundleAndServer()
	case s.Server != "":
		if b, err = locate.FindServer(s.Server); err == nil {
			facts, err = b.Ask(ctx, s.logger())
		}
		if err != nil {
			return nil, facts, &plan.OptionError{Option: "Server", Err: err}
		}
		s.logger().Warn("this llama-server is not from a bundle: nothing of it is verified", "program", b.Path, "version", facts.Version)
		return b, facts, nil
	}
	if b, err = locate.Find(s.Bundle); err != nil && s.Bundle != "" {
		err = &plan.OptionError{Option: "Bundle", Err: err}
	}
	return b, facts, err
}

// useBundle sets what findBundle returned.
func (s *Settings) useBundle(m *machine.Machine, b *locate.Bundle, facts locate.ServerFacts) {
	if s.Server != "" {
		m.UseServer(b, facts)
		return
	}
	m.UseBundle(b)
}

// plan makes the first plan and logs its reasons.
func (l *Prepared) plan(ctx context.Context) error {
	o := l.settings.planOptions(l.Header)
	if err := l.machine.ReadVulkan(ctx, l.Header, o); err != nil {
		return err
	}
	p, err := l.machine.PlanFile(l.Path, l.Header, o)
	if err != nil {
		return err
	}
	l.srv.setPlan(p)
	log := l.settings.logger()
	if p.Fallback != "" && l.settings.Layers != plan.CPUOnly && l.settings.Backend != plan.BackendCPU {
		log.Warn("running on the CPU", "reason", p.Fallback)
	}
	for _, reason := range p.Reasons {
		log.Info("plan", "reason", reason)
	}
	return nil
}

// checkArgs rejects arguments of the user, and a chat template in a file, that
// llama-server would not accept. planned says that there is a plan, template that the
// file of the template can be read.
func (l *Prepared) checkArgs(ctx context.Context, planned, template bool) error {
	parts := map[string]Settings{}
	if len(l.settings.Args) > 0 {
		parts["Args"] = Settings{Args: l.settings.Args}
	}
	if template && l.settings.ChatTemplateFile != "" {
		parts["ChatTemplateFile"] = Settings{ChatTemplateFile: l.settings.ChatTemplateFile}
	}
	var errs []error
	reject := func(option, format string, args ...any) {
		delete(parts, option)
		errs = append(errs, plan.InvalidOption(option, format, args...))
	}
	if err := supervise.CheckArgs(l.settings.Args); err != nil {
		reject("Args", "%w", err)
	}
	if l.bundle == nil {
		return errors.Join(errs...)
	}
	if l.srv.Plan == nil {
		l.srv.setPlan(&plan.Plan{})
	}
	err := l.ensureUnpacked(ctx)
	var flags *supervise.Flags
	if err == nil {
		flags, err = l.srv.program.Flags(ctx)
	}
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if unknown := flags.Unknown(l.settings.Args); len(unknown) > 0 && len(errs) == 0 {
		reject("Args", "this llama-server has no %s; correct or remove these arguments (Settings.Args, --server-arg)", strings.Join(unknown, ", "))
	}
	options := slices.Sorted(maps.Keys(parts))
	spec := l.spec()
	spec.Flags = flags
	var whole error
	if planned && len(errs) == 0 {
		whole = checkedArgs(supervise.TryArgs(ctx, spec))
		if whole == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if len(options) == 1 {
			return plan.InvalidOption(options[0], "%w", whole)
		}
	}
	// llama-server reports the first mistake only: each part is tried alone.
	for _, option := range options {
		part := parts[option]
		spec.Args, spec.TCPAddr = part.serverArgs("model"), ""
		if err := checkedArgs(supervise.TryArgs(ctx, spec)); err != nil {
			reject(option, "%w", err)
		}
	}
	if len(errs) == 0 && whole != nil { // only together are they wrong
		reject("Args", "%w", whole)
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// checkedArgs returns err if it is one about arguments. Other errors are those of a
// start, which may have a remedy.
func checkedArgs(err error) error {
	for _, kind := range []error{supervise.ErrMemoryLimit, supervise.ErrBadTemplate, supervise.ErrBadArgument, supervise.ErrStartTimeout} {
		if errors.Is(err, kind) {
			return err
		}
	}
	return nil
}

// ensureUnpacked unpacks the files that the plan needs, unless they are unpacked
// already: a later plan may be for a card of another target.
func (l *Prepared) ensureUnpacked(ctx context.Context) error {
	targets := []gfx.Target{} // none besides the files that every machine needs
	if l.srv.Plan.Target != "" {
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

// Start starts llama-server and waits until it is ready. The caller closes the
// server.
func (l *Prepared) Start(ctx context.Context) (*Server, error) {
	err := l.start(ctx)
	if ctx.Err() != nil {
		err = withCause(ctx, err)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.closeFiles()
	return l.srv, nil
}

func (l *Prepared) start(ctx context.Context) error {
	if err := l.ensureUnpacked(ctx); err != nil {
		return err
	}
	flags, err := l.srv.program.Flags(ctx)
	if err != nil {
		return err
	}
	return l.load(ctx, flags)
}

// Close releases the resources of a start that was prepared.
func (l *Prepared) Close() error {
	l.closeFiles()
	if l.srv.program == nil {
		return nil
	}
	return l.srv.program.Close()
}

// closeFiles closes the files that were read.
func (l *Prepared) closeFiles() {
	if l.Header != nil {
		_ = l.Header.Close()
	}
	if l.bundle != nil {
		_ = l.bundle.Close()
	}
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
