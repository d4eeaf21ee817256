package rocm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Name is the backend's name in the registry of pkg/inference.
const Name = "rocm"

// Conditions of this package, for errors.Is. Failures of the child process wrap
// the causes of runtime/supervise.
var (
	// ErrUnavailable means that this platform cannot run the backend.
	ErrUnavailable = errors.New("the rocm backend needs linux on amd64")
	// ErrClosed means that the model was closed.
	ErrClosed = errors.New("model is closed")
	// ErrOption means that an option is out of its range.
	ErrOption = errors.New("invalid option")
	// ErrModelFile means that the path names nothing that can be loaded.
	ErrModelFile = errors.New("not a loadable model")
)

// Backend implements inference.Backend. The zero value is ready to use.
type Backend struct {
	// Defaults are the settings that LoadModel starts from.
	Defaults Settings
}

// Settings is everything that can be said about loading a model.
type Settings struct {
	// LoadConfig is the contract's part. ContextLen is in tokens and shared by
	// the slots; GPULayers -1 puts on the GPU what fits, which is all where the
	// memory allows.
	inference.LoadConfig
	// Plan, when set, replaces what is derived from LoadConfig (context, slots,
	// layers, adapter) and says more.
	Plan *plan.Options
	// Bundle is a folder or packed file to use instead of the one that is found.
	Bundle string
	// Alias is the model's name in the server's answers; empty: the file's name.
	Alias string
	// Projector is a GGUF file that lets the model read images or sound: the one
	// made for it (mmproj). It goes before Plan.Projector.
	Projector string
	// ChatTemplateFile replaces the model's template.
	ChatTemplateFile string
	// Embeddings or Reranking start the server for that purpose alone, ready for
	// texts of ContextLen tokens, 8192 at most, unless Args have a batch size.
	Embeddings, Reranking bool
	// Pooling says how the vectors of a text's tokens become one (mean, cls,
	// last, rank); empty: as the model says.
	Pooling string
	// SlotDir is a folder for saved slots; empty: saving is off.
	SlotDir string
	// CacheLimit bounds the main memory, in bytes, in which the server keeps the
	// state of prompts that it may meet again; it is rounded up to MiB. 0: the
	// server's default, negative: nothing is kept. It goes before Plan.CacheRAM.
	CacheLimit int64
	// SysRoot is the folder below which the kernel's files about GPUs and memory
	// are read; empty: "/". A tree of text files stands for another machine.
	SysRoot string
	// Args are further arguments for llama-server. A flag that it does not know
	// ends loading with an ErrOption that names it.
	Args []string
	// TCP is a host:port for the child to listen on instead of a private socket.
	TCP string

	// StartTimeout, DrainTimeout, StopTimeout and StallTimeout are those of
	// supervise.Spec; StallTimeout is 10 minutes by default where a GPU has only
	// a part of the model.
	StartTimeout, DrainTimeout, StopTimeout, StallTimeout time.Duration
	// Restart says what happens when the child dies; the default is nothing.
	Restart supervise.RestartPolicy

	// Log takes what happens; nil: nothing is logged.
	Log *slog.Logger
	// Unpacking is told how far the bundle is unpacked, in bytes.
	Unpacking func(done, total int64)
	// Loading is told of the child's states while it starts, and of how much of
	// the model is loaded.
	Loading func(supervise.Event)

	imagined bool // planned for a machine that is not this one
}

// DefaultSettings are the contract's defaults.
func DefaultSettings() Settings {
	return Settings{LoadConfig: inference.ApplyLoadOpts(nil)}
}

// Name implements inference.Backend.
func (*Backend) Name() string { return Name }

// Available implements inference.Backend: the platform fits and a bundle is
// there. It says nothing about GPUs: without one, models run on the CPU.
func (b *Backend) Available() bool {
	if !supported() {
		return false
	}
	found, err := FindBundle(b.Defaults.Bundle)
	if err != nil {
		return false
	}
	return found.Close() == nil
}

// LoadModel implements inference.Backend.
func (b *Backend) LoadModel(path string, opts ...inference.LoadOption) (inference.TextModel, error) {
	s := b.Defaults
	s.LoadConfig = inference.ApplyLoadOpts(opts)
	m, err := b.Load(context.Background(), path, s)
	if err != nil {
		return nil, err // a nil *Model must not become a TextModel that is not nil
	}
	return m, nil
}

// Load loads the model at path, a GGUF file or a folder that holds just one.
// Cancelling ctx ends the attempt; it has no meaning for the model afterwards.
func (b *Backend) Load(ctx context.Context, path string, s Settings) (*Model, error) {
	srv, err := Launch(ctx, path, s)
	if err != nil {
		return nil, err
	}
	m, err := newModel(ctx, srv)
	if err != nil {
		return nil, errors.Join(err, srv.Close())
	}
	return m, nil
}

func supported() bool { return runtime.GOOS == "linux" && runtime.GOARCH == "amd64" }

// planOptions translates the contract's options.
func (s *Settings) planOptions() (plan.Options, error) {
	o, err := s.wishes()
	switch {
	case err != nil:
	case s.CacheLimit > math.MaxInt32*plan.MiB:
		err = fmt.Errorf("%w: a cache of %d bytes", ErrOption, s.CacheLimit)
	case s.CacheLimit > 0:
		o.CacheRAM = int((s.CacheLimit + plan.MiB - 1) / plan.MiB)
	case s.CacheLimit < 0:
		o.CacheRAM = -1
	}
	if s.Projector != "" {
		o.Projector = s.Projector
	}
	return o, err
}

// wishes are the options before the settings that go before them.
func (s *Settings) wishes() (plan.Options, error) {
	if s.Plan != nil {
		return *s.Plan, nil
	}
	o := plan.DefaultOptions()
	switch {
	case s.ContextLen < 0:
		return o, fmt.Errorf("%w: a context of %d tokens; use 0 for the model's own", ErrOption, s.ContextLen)
	case s.ParallelSlots < 0:
		return o, fmt.Errorf("%w: %d slots; use 0 for the default", ErrOption, s.ParallelSlots)
	case s.GPULayers < -1:
		return o, fmt.Errorf("%w: %d GPU layers; use -1 for all", ErrOption, s.GPULayers)
	}
	o.Context, o.Slots = s.ContextLen, s.ParallelSlots
	if s.GPULayers >= 0 {
		o.Layers = s.GPULayers
	}
	if s.AdapterPath != "" {
		o.Adapters = []string{s.AdapterPath}
	}
	return o, nil
}

func (s *Settings) logger() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// environ is what plan takes masks from.
func (s *Settings) environ() []string {
	if s.imagined {
		return nil
	}
	return os.Environ()
}

func (s *Settings) sysRoot() string {
	if s.SysRoot == "" {
		return "/"
	}
	return s.SysRoot
}
