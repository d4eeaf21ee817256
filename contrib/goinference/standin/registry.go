package inference

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

var registered struct {
	sync.RWMutex
	byName map[string]Backend
}

// Register adds a backend under its name.
func Register(b Backend) {
	registered.Lock()
	defer registered.Unlock()
	if registered.byName == nil {
		registered.byName = map[string]Backend{}
	}
	registered.byName[b.Name()] = b
}

// Get returns the backend of that name.
func Get(name string) (Backend, bool) {
	registered.RLock()
	defer registered.RUnlock()
	b, ok := registered.byName[name]
	return b, ok
}

// List returns the sorted names.
func List() []string {
	registered.RLock()
	defer registered.RUnlock()
	return slices.Sorted(maps.Keys(registered.byName))
}

// Default returns the best available backend.
func Default() (Backend, error) {
	for _, name := range append([]string{"metal", "rocm", "llama_cpp"}, List()...) {
		if b, ok := Get(name); ok && b.Available() {
			return b, nil
		}
	}
	return nil, fmt.Errorf("no backend of %v is available", List())
}

// LoadModel loads a model with the backend that the options name, or with the default one.
func LoadModel(path string, opts ...LoadOption) (TextModel, error) {
	b, err := choose(ApplyLoadOpts(opts).Backend)
	if err != nil {
		return nil, err
	}
	return b.LoadModel(path, opts...)
}

func choose(name string) (Backend, error) {
	if name == "" {
		return Default()
	}
	b, ok := Get(name)
	switch {
	case !ok:
		return nil, fmt.Errorf("backend %q is not registered", name)
	case !b.Available():
		return nil, fmt.Errorf("backend %q is not available", name)
	}
	return b, nil
}
