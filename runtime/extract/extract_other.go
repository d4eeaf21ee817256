//go:build !linux

package extract

import (
	"context"
	"errors"
	"fmt"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// installAt has no meaning elsewhere: bundles hold Linux programs.
func installAt(_ context.Context, r *bundle.Reader, _ place, _ []gfx.Target, _ Options) (*Installed, error) {
	return nil, fmt.Errorf("bundle %s holds Linux programs: %w", r.Manifest().Name, errors.ErrUnsupported)
}

// store is never made here.
type store struct{}

func (*store) list() ([]Cached, error) { return nil, errors.ErrUnsupported }

func (*store) prune(context.Context, PruneOptions) ([]Cached, error) {
	return nil, errors.ErrUnsupported
}

// eachStore finds none: bundles are only installed on Linux.
func eachStore(string, func(*store) error) error { return nil }
