package extract

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// SupersededAge is how long a bundle must be unused before the installation of
// another bundle with the same name removes it.
const SupersededAge = 30 * 24 * time.Hour

// Lease protects an installed bundle from Prune, in any process. It is a lock on an
// open file. The kernel releases it when the last process that has the file open
// closes it or exits, so a child that inherits the file keeps the lease.
type Lease struct{ f atomic.Pointer[os.File] }

// File returns the file that a child inherits to keep the lease; nil if there is no
// lock, for example in a read-only cache.
func (h *Lease) File() *os.File {
	if h == nil {
		return nil
	}
	return h.f.Load()
}

// Release ends the lease in this process. It may be called more than once.
func (h *Lease) Release() error {
	if h == nil {
		return nil
	}
	if f := h.f.Swap(nil); f != nil {
		return f.Close()
	}
	return nil
}

// Cached is a bundle in a cache directory.
type Cached struct {
	// Digest is the bundle's content address, Dir its directory.
	Digest string `json:"digest"`
	Dir    string `json:"dir"`
	// Name, Version and Targets are read from the manifest and the stamp; they
	// are empty if these cannot be read.
	Name    string       `json:"name,omitempty"`
	Version string       `json:"version,omitempty"`
	Targets []gfx.Target `json:"targets,omitempty"`
	// Bytes is the disk space that the bundle occupies.
	Bytes int64 `json:"bytes"`
	// LastUsed is the time of the last Extract. InUse reports whether a process
	// has a lease on the bundle or is installing it.
	LastUsed time.Time `json:"used"`
	InUse    bool      `json:"inUse"`
}

// PruneOptions choose what Prune removes.
type PruneOptions struct {
	// CacheDir is as in Options.
	CacheDir string
	// UnusedFor is how long a bundle must be unused to be removed.
	UnusedFor time.Duration
	// Keep lists the digests of bundles that are not removed.
	Keep []string
	// Name, if not empty, limits Prune to bundles of that name.
	Name string
	// DryRun removes nothing.
	DryRun bool
	// Log receives removals and failures; nil disables it.
	Log *slog.Logger

	// trace is called at each step; tests stop or exit there.
	trace func(step string)
}

// List returns the bundles in the directories that Extract would try, the least
// recently used first within each. It changes nothing.
func List(cacheDir string) ([]Cached, error) {
	var out []Cached
	err := forEachStore(cacheDir, func(s *store) error {
		list, err := s.list()
		out = append(out, list...)
		return err
	})
	return out, err
}

// Prune removes unused bundles from the directories that Extract would try, and the
// remains of killed processes. It returns the removed bundles, or with DryRun those
// that it would remove. It never removes a bundle that a process has a lease on or
// is installing. If Prune is killed at any moment, each bundle is either whole or
// gone.
func Prune(ctx context.Context, o PruneOptions) ([]Cached, error) {
	o.setDefaults()
	var out []Cached
	var errs []error
	err := forEachStore(o.CacheDir, func(s *store) error {
		list, err := s.prune(ctx, o)
		out = append(out, list...)
		errs = append(errs, err)
		return ctx.Err()
	})
	return out, errors.Join(append(errs, err)...)
}

func (o *PruneOptions) setDefaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.trace == nil {
		o.trace = func(string) {}
	}
}
