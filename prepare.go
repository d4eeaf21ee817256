package rocm

import (
	"context"
	"crypto/rand"
	"errors"
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
	err := s.validateServer()
	if readErr := l.read(path); readErr != nil {
		err = errors.Join(s.Options.Validate(), err, readErr)
	} else {
		err = errors.Join(l.plan(), err) // planning validates the options, and the files in them
	}
	if err == nil && (len(s.Args) > 0 || s.ChatTemplateFile != "") {
		err = l.checkArgs(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// read reads the model's header, the machine and, at the same time, the bundle's
// manifest.
func (l *Prepared) read(path string) error {
	var bundleErr error
	var reading sync.WaitGroup
	reading.Go(func() {
		if l.bundle, bundleErr = locate.Find(l.settings.Bundle); bundleErr != nil && l.settings.Bundle != "" {
			bundleErr = &plan.OptionError{Option: "Bundle", Err: bundleErr}
		}
	})
	var err error
	if l.Path, l.Header, err = machine.OpenModel(path); err == nil {
		l.machine = machine.New(l.settings.machine())
	}
	reading.Wait()
	if err = errors.Join(err, bundleErr); err != nil {
		return err
	}
	l.machine.UseBundle(l.bundle)
	l.srv.Path, l.srv.Info, l.srv.Origin = l.Path, modelInfo(l.Header), l.bundle.Origin
	return nil
}

// plan makes the first plan and logs its reasons.
func (l *Prepared) plan() error {
	p, err := l.machine.PlanFile(l.Path, l.Header, l.settings.planOptions(l.Header))
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

// checkArgs rejects arguments of the user that llama-server would not accept.
func (l *Prepared) checkArgs(ctx context.Context) error {
	invalid := func(err error) error { return plan.InvalidOption("Args", "%w", err) }
	if err := supervise.CheckArgs(l.settings.Args); err != nil {
		return invalid(err)
	}
	if err := l.ensureUnpacked(ctx); err != nil {
		return err
	}
	flags, err := l.srv.program.Flags(ctx)
	if err != nil {
		return err
	}
	if unknown := flags.Unknown(l.settings.Args); len(unknown) > 0 {
		return plan.InvalidOption("Args", "this llama-server has no %s; correct or remove these arguments (Settings.Args, --server-arg)", strings.Join(unknown, ", "))
	}
	spec := l.spec()
	spec.Flags = flags
	err = supervise.TryArgs(ctx, spec)
	switch {
	case l.settings.ChatTemplateFile != "" && (errors.Is(err, supervise.ErrMemoryLimit) || errors.Is(err, supervise.ErrBadTemplate)):
		return plan.InvalidOption("ChatTemplateFile", "%w", err)
	case errors.Is(err, supervise.ErrBadArgument) || errors.Is(err, supervise.ErrStartTimeout):
		return invalid(err)
	}
	return ctx.Err() // other errors are those of a start, which may have a remedy
}

// ensureUnpacked unpacks the files that the plan needs, unless they are unpacked
// already: a later plan may be for a card of another target.
func (l *Prepared) ensureUnpacked(ctx context.Context) error {
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
