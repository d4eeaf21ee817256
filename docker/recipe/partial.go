package recipe

import (
	"context"
	"fmt"

	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
)

// PartialCompile describes some build targets of a component that are compiled separately
// with the component's own options. It takes minutes and represents the whole compile in
// comparisons with other ways of compiling.
type PartialCompile struct {
	// Source is the verified source tree, and Image the image of the compile.
	Source, Image string
	// Options are the arguments of CMake, Env the whole environment.
	Options, Env []string

	recipe    Recipe
	component Component
	source    *stage.Result
	toolchain *toolchain.Toolchain
}

// PartialCompile prepares the compile of build targets of the named component; modules are their
// results in the build's bin directory. It returns when everything except the compile itself is
// done.
func (r *Recipe) PartialCompile(ctx context.Context, component string, build, libraries, modules []string) (*PartialCompile, error) {
	c, ok := components(r.Lock, r.Targets)[component]
	if !ok {
		return nil, fmt.Errorf("there is no component %q", component)
	}
	c.Build, c.Programs, c.Libraries, c.Modules = build, nil, libraries, modules
	src, err := Source(ctx, r.Cache, r.Lock, r.Source, r.Log)
	if err != nil {
		return nil, err
	}
	t, err := toolchain.Describe(ctx, r.Engine, r.Cache, r.toolchainSpec(c.Set), r.Log)
	if err != nil {
		return nil, err
	}
	if err := toolchain.Ensure(ctx, r.Engine, r.toolchainSpec(c.Set), t, r.Log); err != nil {
		return nil, err
	}
	known, err := declaredOptions(src.Dir)
	if err != nil {
		return nil, err
	}
	return &PartialCompile{
		Source: src.Dir, Image: t.ID, Options: c.arguments(r.CMake, known), Env: r.environment(c),
		recipe: *r, component: c, source: src, toolchain: t,
	}, nil
}

// Compile compiles the part as a stage of cache, which the caller should discard.
func (p *PartialCompile) Compile(ctx context.Context, cache *stage.Cache) (*stage.Result, error) {
	r := p.recipe
	r.Cache = cache
	return r.compile(ctx, p.component, p.source, p.toolchain)
}
