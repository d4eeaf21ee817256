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

// SupersededAge is how long a bundle must have been unused before an install of
// another one of the same name removes it.
const SupersededAge = 30 * 24 * time.Hour

// Lease keeps an installed bundle from being removed by Prune, whichever process
// calls it. It is a lock that ends when the last process that has it open
// closes it or dies, so a child that inherits it holds the bundle too.
type Lease struct{ f atomic.Pointer[os.File] }

// File is what a child inherits to hold the bundle; nil where nothing can be
// held, such as in a cache that cannot be written to.
func (h *Lease) File() *os.File {
	if h == nil {
		return nil
	}
	return h.f.Load()
}

// Release lets go, for this process. It may be called more than once.
func (h *Lease) Release() error {
	if h == nil {
		return nil
	}
	if f := h.f.Swap(nil); f != nil {
		return f.Close()
	}
	return nil
}

// Cached is a bundle in a cache folder.
type Cached struct {
	// Digest is the bundle's content address, Dir where it lies.
	Digest string `json:"digest"`
	Dir    string `json:"dir"`
	// Name, Version and Targets are what the folder holds by its manifest and
	// seal; empty where these cannot be read.
	Name    string       `json:"name,omitempty"`
	Version string       `json:"version,omitempty"`
	Targets []gfx.Target `json:"targets,omitempty"`
	// Bytes is what it takes on the disk.
	Bytes int64 `json:"bytes"`
	// LastUsed is when it was last asked for, InUse whether a process holds it or
	// installs it right now.
	LastUsed time.Time `json:"used"`
	InUse    bool      `json:"inUse"`
}

// PruneOptions choose what Prune removes.
type PruneOptions struct {
	// CacheDir is as in Options.
	CacheDir string
	// UnusedFor is how long a bundle must not have been asked for.
	UnusedFor time.Duration
	// Keep are digests of bundles that stay.
	Keep []string
	// Name, when not empty, limits it to bundles of that name.
	Name string
	// DryRun removes nothing.
	DryRun bool
	// Log gets what is removed, and what cannot be; nil is silent.
	Log *slog.Logger

	// trace is told each step; tests stop or die there.
	trace func(step string)
}

// List returns the bundles in the folders that Extract would try, the least
// recently used first within each. It makes and changes nothing.
func List(cacheDir string) ([]Cached, error) {
	var out []Cached
	err := eachStore(cacheDir, func(s *store) error {
		list, err := s.list()
		out = append(out, list...)
		return err
	})
	return out, err
}

// Prune removes bundles that nobody uses from the folders that Extract would
// try, and what killed processes left behind there. It returns the bundles
// removed, or with DryRun those that would be. A bundle that a process holds
// or installs stays, however long ago that began. Killed at any moment it
// leaves every bundle whole or gone.
func Prune(ctx context.Context, o PruneOptions) ([]Cached, error) {
	o.setDefaults()
	var out []Cached
	var errs []error
	err := eachStore(o.CacheDir, func(s *store) error {
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
