package inference

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
)

// Conditions of Default and LoadModel, to be tested with errors.Is.
var (
	// ErrNoBackend means that no registered backend can run on this machine.
	ErrNoBackend = errors.New("no inference backend is available")
	// ErrBackendNotRegistered means that the named backend was not linked into the program.
	ErrBackendNotRegistered = errors.New("inference backend is not registered")
	// ErrBackendUnavailable means that the named backend cannot run on this machine.
	ErrBackendUnavailable = errors.New("inference backend is not available on this machine")
)

// registry is the only state of the package: who registered from an init function.
type registry struct {
	mu     sync.RWMutex
	byName map[string]Backend
}

var backends = registry{byName: map[string]Backend{}}

// preferred is the order in which Default looks; other names follow, sorted.
func preferred() []string { return []string{"metal", "rocm", "llama_cpp"} }

// Register adds a backend under its name; a later one of the same name takes
// its place. It panics on a nil backend or an empty name, which are mistakes of
// the backend's author that no caller could handle.
func Register(b Backend) {
	if b == nil {
		panic("inference: Register called with a nil backend")
	}
	name := b.Name()
	if name == "" {
		panic(fmt.Sprintf("inference: Register called with a backend without a name (%T)", b))
	}
	backends.mu.Lock()
	defer backends.mu.Unlock()
	backends.byName[name] = b
}

// Get returns the backend registered under name.
func Get(name string) (Backend, bool) {
	backends.mu.RLock()
	defer backends.mu.RUnlock()
	b, ok := backends.byName[name]
	return b, ok
}

// List returns the names of the registered backends, sorted.
func List() []string {
	backends.mu.RLock()
	defer backends.mu.RUnlock()
	names := make([]string, 0, len(backends.byName))
	for name := range backends.byName {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// All yields name and backend, sorted by name. It walks over a snapshot taken
// when the loop starts, so the loop may call Register.
func All() iter.Seq2[string, Backend] {
	return func(yield func(string, Backend) bool) {
		names, snapshot := List(), map[string]Backend{}
		for _, name := range names {
			if b, ok := Get(name); ok {
				snapshot[name] = b
			}
		}
		for _, name := range names {
			if b, ok := snapshot[name]; ok && !yield(name, b) {
				return
			}
		}
	}
}

// Default returns the best backend that is available: metal, rocm, llama_cpp,
// then any other by name. Without one it returns an error that wraps
// ErrNoBackend and says what to do.
func Default() (Backend, error) {
	names := List()
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: none is registered; import one, for example _ %q",
			ErrNoBackend, "forge.lthn.ai/core/go-rocm")
	}
	order := preferred()
	for _, name := range names {
		if !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	for _, name := range order {
		if b, ok := Get(name); ok && b.Available() {
			return b, nil
		}
	}
	return nil, fmt.Errorf("%w: registered but not usable on this machine: %s; import a backend that is",
		ErrNoBackend, strings.Join(names, ", "))
}

// LoadModel loads the model at path with the backend that the options name, or
// with the default one.
func LoadModel(path string, opts ...LoadOption) (TextModel, error) {
	cfg := ApplyLoadOpts(opts)
	if cfg.Backend == "" {
		b, err := Default()
		if err != nil {
			return nil, err
		}
		return b.LoadModel(path, opts...)
	}
	b, ok := Get(cfg.Backend)
	if !ok {
		return nil, fmt.Errorf("%w: %q (registered: %s); import the package that provides it",
			ErrBackendNotRegistered, cfg.Backend, orNone(List()))
	}
	if !b.Available() {
		return nil, fmt.Errorf("%w: %q", ErrBackendUnavailable, cfg.Backend)
	}
	return b.LoadModel(path, opts...)
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
