package rocm

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// Name is the backend's name in the registry of pkg/inference.
const Name = "rocm"

// Conditions that errors of this package wrap. Failures of the child process wrap
// the causes of runtime/supervise.
var (
	// ErrUnsupportedPlatform reports that the backend cannot run on this platform.
	ErrUnsupportedPlatform = fmt.Errorf("the rocm backend needs linux on amd64: %w", errors.ErrUnsupported)
	// ErrNoBundle reports that there is no llama-server to run.
	ErrNoBundle = locate.ErrNoBundle
	// ErrModelFile reports that a path names nothing that can be loaded.
	ErrModelFile = machine.ErrModelFile
	// ErrInvalidOption reports an option out of its range, in settings or in a
	// request.
	ErrInvalidOption = plan.ErrInvalidOption
	// ErrPromptTooLong reports that a prompt does not fit into the context of a
	// slot. The error wraps the server's *llamaapi.APIError too, which has the number
	// of tokens.
	ErrPromptTooLong = inference.ErrPromptTooLong
	// ErrClosed reports that the model was closed.
	ErrClosed = errors.New("model is closed")
)

// invalidOption returns an error that wraps ErrInvalidOption.
func invalidOption(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalidOption, fmt.Errorf(format, args...))
}

// init registers the backend, as the contract's backends do. On platforms that
// cannot run it, the registered backend reports that it is not available.
func init() { inference.Register(&Backend{}) } //nolint:gochecknoinits // the contract's way of registering

// Backend implements inference.Backend. The zero value is ready to use.
type Backend struct {
	// Defaults are the settings of LoadModel, where its options do not change them.
	Defaults Settings
}

// Name implements inference.Backend.
func (*Backend) Name() string { return Name }

// Available implements inference.Backend. It reports whether the platform is
// supported and a bundle is there. Without a GPU, models run on the CPU.
func (b *Backend) Available() bool { return b.CheckAvailable() == nil }

// CheckAvailable implements inference.AvailabilityChecker. Its error wraps
// [ErrUnsupportedPlatform], or [ErrNoBundle] where there is no bundle.
func (b *Backend) CheckAvailable() error {
	if !supported() {
		return ErrUnsupportedPlatform
	}
	found, err := locate.Find(b.Defaults.Bundle)
	if err != nil {
		return err
	}
	return found.Close()
}

// LoadModel implements inference.Backend. GPULayers -1, the contract's default,
// loads as many layers on the GPU as fit.
func (b *Backend) LoadModel(path string, opts ...inference.LoadOption) (inference.TextModel, error) {
	s, err := b.Defaults.withLoadConfig(inference.ApplyLoadOpts(opts))
	if err != nil {
		return nil, err
	}
	m, err := b.Load(context.Background(), path, s)
	if err != nil {
		return nil, err // a nil *Model would become a TextModel that is not nil
	}
	return m, nil
}

// Load loads the model at path: a GGUF file, a directory with one model, or a
// reference such as hf:OWNER/REPO to a model of the store, see [Settings].Download.
// Cancelling ctx ends the attempt; afterwards ctx has no effect on the model.
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
