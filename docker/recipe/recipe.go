package recipe

import (
	"context"
	"fmt"
	"io"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// Recipe has the settings and services of all steps.
type Recipe struct {
	Engine    engine.Engine
	Cache     *stage.Cache
	Lock      Lock
	Source    string // a path given by the user, or empty
	Targets   []gfx.Target
	CMake     []string
	Jobs      int
	Memory    int64 // bytes, 0: no limit
	Toolchain toolchain.Spec
	Log       io.Writer
	Progress  Progress
}

// Progress opens the log of a long step.
type Progress interface {
	Open(step string) (io.WriteCloser, error)
}

func (r *Recipe) toolchainSpec(set toolchain.Set) toolchain.Spec {
	s := r.Toolchain
	s.Set = set
	return s
}

// Compile fetches the source and compiles the components of a variant.
func (r *Recipe) Compile(ctx context.Context, v Variant) (map[string]*stage.Result, error) {
	src, err := Source(ctx, r.Cache, r.Lock, r.Source, r.Log)
	if err != nil {
		return nil, err
	}
	all := components(r.Lock, r.Targets)
	done := map[string]*stage.Result{}
	for _, name := range v.Components {
		c, ok := all[name]
		if !ok {
			return nil, fmt.Errorf("variant %s names the component %q, which does not exist", v.Name, name)
		}
		t, err := toolchain.Describe(ctx, r.Engine, r.Cache, r.toolchainSpec(c.Set), r.Log)
		if err != nil {
			return nil, err
		}
		if done[name], err = r.compile(ctx, c, src, t); err != nil {
			return nil, err
		}
	}
	return done, nil
}
