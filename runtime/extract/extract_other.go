//go:build !linux

package extract

import (
	"context"
	"errors"
	"fmt"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// installAt fails: bundles contain Linux programs.
func installAt(_ context.Context, r *bundle.Reader, _ location, _ []gfx.Target, _ Options) (*Installed, error) {
	return nil, fmt.Errorf("bundle %s contains Linux programs: %w", r.Manifest().Name, errors.ErrUnsupported)
}

// store is never created on this system.
type store struct{}

func (*store) list() ([]Cached, error) { return nil, errors.ErrUnsupported }

func (*store) prune(context.Context, PruneOptions) ([]Cached, error) {
	return nil, errors.ErrUnsupported
}

// forEachStore finds none: bundles are only installed on Linux.
func forEachStore(string, func(*store) error) error { return nil }
