package rocm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Server is a llama-server that runs a model: what the command line serves, and
// what a Model stands on.
type Server struct {
	// Child is the supervised process.
	Child *supervise.Child
	// Plan is what it was told and why.
	Plan *plan.Plan
	// Path is the model's file, Info what its header says.
	Path string
	Info inference.ModelInfo
	// Origin is where the program came from, BundleDir the folder that it runs from.
	Origin    Origin
	BundleDir string

	devices []gpu.Device
	bundle  *ready
	sysfs   gpu.FS
	marker  string // that the server takes for a medium in a prompt
}

// Launch finds the bundle, plans, starts llama-server and waits until it is
// ready. The caller closes the server.
func Launch(ctx context.Context, path string, s Settings) (*Server, error) {
	if !supported() {
		return nil, ErrUnavailable
	}
	path, err := modelFile(path)
	if err != nil {
		return nil, err
	}
	facts, found, m, err := prepare(path, &s)
	if err != nil {
		return nil, err
	}
	defer func() { _ = facts.Close() }()
	defer func() { _ = found.Close() }()

	srv := &Server{Path: path, Info: infoOf(facts), Origin: found.Origin, sysfs: gpu.NewFS(s.sysRoot()), marker: "<__media_" + rand.Text() + "__>"}
	if srv.Plan, err = m.makePlan(path, facts); err != nil {
		return nil, err
	}
	srv.devices = srv.Plan.Chosen
	if o := srv.Plan.Request.Options; srv.Plan.Fallback != "" && o.Layers != 0 {
		s.logger().Warn("running on the CPU", "reason", srv.Plan.Fallback)
	}
	for _, why := range srv.Plan.Reasons {
		s.logger().Info("plan", "reason", why)
	}
	if err := srv.bring(ctx, m, found); err != nil {
		return nil, err
	}
	flags, err := flagsFor(ctx, srv.bundle)
	if err == nil {
		if unknown := flags.Unknown(s.Args); len(unknown) > 0 {
			err = fmt.Errorf("%w: this llama-server does not know %s; correct or leave out what Settings.Args holds of it", ErrOption, strings.Join(unknown, ", "))
		}
	}
	if err == nil {
		err = srv.load(ctx, m, found, facts, flags)
	}
	if err != nil {
		return nil, errors.Join(err, srv.bundle.hold.Release())
	}
	return srv, nil
}

// bring unpacks what the plan needs of the bundle, unless it is there already: a
// plan that replaces another may be for a card of another target.
func (srv *Server) bring(ctx context.Context, m *Machine, found *Bundle) error {
	targets := []gfx.Target{} // none, beside what every machine needs
	if srv.Plan.GPU {
		targets = append(targets, srv.Plan.Target)
	}
	before := srv.bundle
	if before != nil && !slices.ContainsFunc(targets, func(t gfx.Target) bool { return !slices.Contains(before.targets, t) }) {
		return nil
	}
	r, err := found.unpack(ctx, targets, m.folders, m.settings.logger(), m.settings.Unpacking)
	if err != nil {
		return err
	}
	srv.bundle, srv.BundleDir = r, r.dir
	if before == nil {
		return nil
	}
	return before.hold.Release()
}

// prepare reads the model's header, the bundle's manifest and the machine, the
// bundle beside the others: none of them needs another.
func prepare(path string, s *Settings) (facts *gguf.File, found *Bundle, m *Machine, err error) {
	var bundleErr error
	var reading sync.WaitGroup
	reading.Go(func() { found, bundleErr = FindBundle(s.Bundle) })
	if facts, err = openModel(path); err == nil {
		m = &Machine{settings: *s}
		m.look()
	}
	reading.Wait()
	if err == nil {
		err = bundleErr
	}
	switch {
	case err == nil:
		m.take(found)
		return facts, found, m, nil
	case facts != nil:
		_ = facts.Close()
	}
	if bundleErr == nil {
		_ = found.Close()
	}
	return nil, nil, nil, err
}

// load starts llama-server and, where that fails for a reason that less would
// cure, once more with less.
func (srv *Server) load(ctx context.Context, m *Machine, found *Bundle, facts *gguf.File, flags *supervise.Flags) error {
	s := &m.settings
	for ladder := plan.NewLadder(srv.Plan.Request.Options); ; {
		spec := srv.spec(s, facts)
		spec.Flags = flags
		err := srv.start(ctx, spec, s.Loading)
		if err == nil {
			return nil
		}
		failure := fmt.Errorf("load %s: %w", srv.Path, err)
		switch {
		case ctx.Err() != nil:
			return failure
		case errors.Is(err, supervise.ErrNoDevice) && srv.Plan.GPU:
			err = srv.withoutGPU(m, facts, failure)
		case errors.Is(err, supervise.ErrHostMemory):
			return failure // less on the GPU is more in the host
		case errors.Is(err, supervise.ErrOutOfMemory):
			err = srv.stepDown(ctx, m, ladder, facts, failure)
		default:
			return failure
		}
		if err != nil {
			return err
		}
		if err := srv.bring(ctx, m, found); err != nil {
			return errors.Join(failure, err)
		}
	}
}

// envMarker tells llama-server what stands for a medium in a prompt
// (server-common.cpp). By itself it would choose another one at each start, and
// a request that is sent again to a new process would have the old one.
const envMarker = "LLAMA_MEDIA_MARKER"

func (srv *Server) spec(s *Settings, facts *gguf.File) supervise.Spec {
	r := srv.bundle
	args := append([]string{}, srv.Plan.Args...)
	alias := s.Alias
	if alias == "" {
		alias = strings.TrimSuffix(filepath.Base(srv.Path), ".gguf")
	}
	args = append(args, "--alias", alias, "--offline")
	if s.ChatTemplateFile != "" {
		if abs, err := filepath.Abs(s.ChatTemplateFile); err == nil {
			args = append(args, "--chat-template-file", abs)
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
	if s.SlotDir != "" {
		if abs, err := filepath.Abs(s.SlotDir); err == nil {
			args = append(args, "--slot-save-path", abs)
		}
	}
	restart := s.Restart
	if restart.Mode != supervise.Never && restart.BeforeRestart == nil && len(srv.devices) > 0 {
		restart.BeforeRestart = srv.settle
	}
	return supervise.Spec{
		Argv: r.argv, Args: append(args, s.Args...), Env: append(slices.Clone(srv.Plan.Env), envMarker+"="+srv.marker), Dir: r.dir, ExtraFiles: r.inherit(), TCPAddr: s.TCP,
		ModelBytes: facts.Size(), StartTimeout: s.StartTimeout, DrainTimeout: s.DrainTimeout,
		StopTimeout: s.StopTimeout, StallTimeout: srv.stallTimeout(s), CPUOnly: !srv.Plan.GPU, Restart: restart, Log: s.logger(),
	}
}

// partStall is how long requests may run without a token where a part of the
// model is computed on the CPU: a batch of a prompt then takes minutes, and what
// the CPU does tells nothing, since a GPU that hangs may keep it busy, too.
const partStall = 10 * time.Minute

func (srv *Server) stallTimeout(s *Settings) time.Duration {
	if p := srv.Plan; s.StallTimeout == 0 && p.GPU && p.WholeLayers < p.TotalLayers {
		return partStall
	}
	return s.StallTimeout
}

// start starts the child and tells loading of its states until it is ready.
func (srv *Server) start(ctx context.Context, spec supervise.Spec, loading func(supervise.Event)) error {
	spec.OnEvent = loading
	child, err := supervise.Start(ctx, spec)
	if err != nil {
		return err
	}
	srv.Child = child
	return nil
}

// settle waits until a dead child's GPU memory is free again.
func (srv *Server) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	const slack = 16 << 20
	for _, d := range srv.devices {
		if _, err := srv.sysfs.WaitVRAMFree(ctx, d, 100*time.Millisecond, slack); err != nil {
			return err
		}
	}
	return nil
}

// memory is what is used on the plan's devices now, 0 without a GPU.
func (srv *Server) memory() uint64 {
	var sum uint64
	for _, d := range srv.devices {
		s := srv.sysfs.Sample(d)
		if s.Err != nil {
			continue
		}
		sum += s.VRAMUsed
		if d.Integrated {
			sum += s.GTTUsed
		}
	}
	return sum
}

// Close stops the server.
func (srv *Server) Close() error {
	if srv.Child == nil {
		return srv.bundle.hold.Release()
	}
	return errors.Join(srv.Child.Stop(context.Background()), srv.bundle.hold.Release())
}

// infoOf takes the contract's facts from a header.
func infoOf(f *gguf.File) inference.ModelInfo {
	return inference.ModelInfo{
		Architecture: f.Architecture(), VocabSize: f.VocabSize(), NumLayers: f.BlockCount(),
		HiddenSize: f.EmbeddingLength(), QuantBits: f.QuantBits(), QuantGroup: f.QuantGroup(),
	}
}
