package result

import (
	core "dappco.re/go"
	goinf "dappco.re/go/inference"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// Backend implements go-inference's Backend with package rocm. The zero value is ready to
// use.
type Backend struct {
	// Defaults are the settings of LoadModel, whose options override them.
	Defaults rocm.Settings
}

var _ goinf.Backend = (*Backend)(nil)

func init() { goinf.Register(&Backend{}) }

// Name implements the contract: "rocm".
func (*Backend) Name() string { return rocm.Name }

// Available implements the contract. It reports whether this platform is supported and a
// bundle was found.
func (b *Backend) Available() bool { return b.CheckAvailable() == nil }

// CheckAvailable returns why the backend is not available, or nil if it is. The contract's
// LoadModel does not report the reason.
func (b *Backend) CheckAvailable() error {
	return (&rocm.Backend{Defaults: b.Defaults}).CheckAvailable()
}

// LoadModel implements the contract. The Result's Value is a *Model.
func (b *Backend) LoadModel(path string, opts ...goinf.LoadOption) core.Result {
	cfg := goinf.ApplyLoadOpts(opts)
	m, err := (&rocm.Backend{Defaults: b.Defaults}).LoadModel(path, func(c *inference.LoadConfig) {
		*c = inference.LoadConfig{
			Backend: cfg.Backend, ContextLen: cfg.ContextLen, GPULayers: cfg.GPULayers,
			ParallelSlots: cfg.ParallelSlots, AdapterPath: cfg.AdapterPath,
		}
	})
	if err != nil {
		return outcome(nil, err)
	}
	model, _ := m.(*rocm.Model) // its backend returns no other type
	return outcome(Wrap(model), nil)
}

// outcome returns a Result with the value, or with the error if it is not nil.
func outcome(value any, err error) core.Result {
	if err != nil {
		return core.Result{Value: err}
	}
	return core.Result{Value: value, OK: true}
}
