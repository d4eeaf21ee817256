package inference

import (
	"fmt"
	"sync"

	core "dappco.re/go"
)

var backends sync.Map // from name to Backend

// Register adds a backend under its name.
func Register(b Backend) { backends.Store(b.Name(), b) }

// Get returns the backend of that name.
func Get(name string) (Backend, bool) {
	v, _ := backends.Load(name)
	b, ok := v.(Backend)
	return b, ok
}

// LoadModel loads a model with the backend that the options name, or with the first available
// one of a fixed order.
func LoadModel(path string, opts ...LoadOption) core.Result {
	names := []string{"metal", "rocm", "llama_cpp"}
	if cfg := ApplyLoadOpts(opts); cfg.Backend != "" {
		names = []string{cfg.Backend}
	}
	for _, name := range names {
		b, ok := Get(name)
		if !ok || !b.Available() {
			continue
		}
		r := b.LoadModel(path, opts...)
		if !r.OK {
			// The module asserts that a failure has an error, and so does this.
			return core.Result{Value: fmt.Errorf("backend %s: %w", name, r.Value.(error))} //nolint:errcheck // a panic is the point
		}
		return r
	}
	return core.Result{Value: fmt.Errorf("no backend of %v is available", names)}
}
