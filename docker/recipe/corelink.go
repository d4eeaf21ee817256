package recipe

import (
	"context"
	"fmt"
	"strconv"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
)

// coreLink is a stage that compiles a part of llama.cpp that no bundle contains, for tests and
// benchmarks, and links it with the libraries of the core's compile.
type coreLink struct {
	name    string   // of the stage
	script  string   // what runs in the container
	options []string // CMake options beside those of the core
}

// coreLinkInputs key such a stage.
type coreLinkInputs struct {
	Compile compileInputs
	Core    string // digest of the output of the core's compile
	Script  string
}

// linkWithCore compiles the core, if it must, and what is linked with it.
func (r *Recipe) linkWithCore(ctx context.Context, l coreLink) (*stage.Result, error) {
	core, err := r.Compile(ctx, Variants()[0])
	if err != nil {
		return nil, err
	}
	src, err := Source(ctx, r.Cache, r.Lock, r.Source, r.Log)
	if err != nil {
		return nil, err
	}
	return r.coreLink(ctx, l, src, core["core"])
}

// coreLink is the stage. It has the options of the core's compile and some more, so it configures
// the same tree; the key of the core's compile has nothing of it.
func (r *Recipe) coreLink(ctx context.Context, l coreLink, src, core *stage.Result) (*stage.Result, error) {
	c := components(r.Lock, r.Targets)["core"]
	t, err := toolchain.Describe(ctx, r.Engine, r.Cache, r.toolchainSpec(c.Set), r.Log)
	if err != nil {
		return nil, err
	}
	in := coreLinkInputs{Core: core.Output, Script: l.script}
	if in.Compile, err = r.compileInputs(c, src, t); err != nil {
		return nil, err
	}
	in.Compile.Options = append(in.Compile.Options, l.options...)
	return r.Cache.Do(ctx, l.name, in, func(ctx context.Context, dir string) error {
		if err := toolchain.Ensure(ctx, r.Engine, r.toolchainSpec(c.Set), t, r.Log); err != nil {
			return err
		}
		log, err := r.Progress.Open(l.name)
		if err != nil {
			return err
		}
		defer log.Close()
		err = r.Engine.Run(ctx, engine.Job{
			Name: l.name, Image: t.ID,
			Cmd: append([]string{"/bin/sh", "-eu", "-c", l.script, l.name}, in.Compile.Options...),
			Env: append(in.Compile.Env, "JOBS="+strconv.Itoa(r.Jobs)),
			Dir: "/build", UID: toolchain.User, GID: toolchain.User,
			Volumes: []string{"/src", "/core", "/build"},
			In: []engine.Input{
				{Dir: "/src", Write: engine.TarDirectory(src.Dir, toolchain.User, r.Lock.Time())},
				{Dir: "/core", Write: engine.TarDirectory(core.Dir, toolchain.User, r.Lock.Time())},
			},
			Out: []engine.Output{{Path: "/build/out", Read: engine.ExtractFiles(dir)}},
			Log: log, Memory: r.Memory,
		})
		if err != nil {
			return fmt.Errorf("compile %s: %w", l.name, err)
		}
		return nil
	})
}
