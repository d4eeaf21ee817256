package inference

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
)

// Conditions that errors of Default and LoadModel wrap.
var (
	// ErrNoBackend reports that no registered backend can run on this machine.
	ErrNoBackend = errors.New("no inference backend is available")
	// ErrBackendNotRegistered reports that the named backend is not linked into the program.
	ErrBackendNotRegistered = errors.New("inference backend is not registered")
	// ErrBackendUnavailable reports that the named backend cannot run on this machine.
	ErrBackendUnavailable = errors.New("inference backend is not available on this machine")
)

// AvailabilityChecker is an optional interface of a Backend. Default and LoadModel
// wrap its error, so that a program learns why a backend is not available.
type AvailabilityChecker interface {
	// CheckAvailable returns nil where Available returns true, and otherwise an
	// error with the cause and its remedy.
	CheckAvailable() error
}

// registry is the only state of the package: the backends that init functions
// registered.
type registry struct {
	mu     sync.RWMutex
	byName map[string]Backend
}

var backends = registry{byName: map[string]Backend{}}

// preferred returns the names that Default tries first; other names follow, sorted.
func preferred() []string { return []string{"metal", "rocm", "llama_cpp"} }

// Register adds a backend under its name and replaces an earlier backend of that
// name. It panics on a nil backend or an empty name, which are mistakes of the
// backend's author that no caller could handle.
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

// Default returns the first available backend of metal, rocm, llama_cpp and then
// all others by name. Without an available backend its error wraps ErrNoBackend
// and the reason of each backend that is an [AvailabilityChecker].
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
	reasons := []any{ErrNoBackend}
	format := "%w"
	for _, name := range order {
		b, ok := Get(name)
		if !ok {
			continue
		}
		err := checkAvailable(b)
		if err == nil {
			return b, nil
		}
		format += fmt.Sprintf("; %s: %%w", strings.ReplaceAll(name, "%", "%%"))
		reasons = append(reasons, err)
	}
	return nil, fmt.Errorf(format, reasons...)
}

// checkAvailable returns nil for an available backend, and otherwise an error that
// wraps ErrBackendUnavailable and the backend's reason.
func checkAvailable(b Backend) error {
	checker, ok := b.(AvailabilityChecker)
	if !ok {
		if b.Available() {
			return nil
		}
		return ErrBackendUnavailable
	}
	if err := checker.CheckAvailable(); err != nil {
		return fmt.Errorf("%w: %w", ErrBackendUnavailable, err)
	}
	return nil
}

// LoadModel loads the model at path with the backend that the options name, or
// with the default backend. Its error wraps the reason where the backend is an
// [AvailabilityChecker] and not available.
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
	if err := checkAvailable(b); err != nil {
		return nil, fmt.Errorf("backend %q: %w", cfg.Backend, err)
	}
	return b.LoadModel(path, opts...)
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
