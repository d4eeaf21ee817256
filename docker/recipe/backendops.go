package recipe

import (
	"context"
	_ "embed" // the script is part of the program
	"fmt"
	"path/filepath"
	"strconv"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
)

//go:embed backendops.sh
var backendOpsScript string

// backendOpsName names the stage and its program, llama.cpp's test-backend-ops: it computes
// operations with a backend and with the CPU, and compares the results. No bundle contains it.
const backendOpsName = "test-backend-ops"

// backendOpsInputs key the compile of the test.
type backendOpsInputs struct {
	Compile compileInputs
	Core    string // digest of the output of the core's compile
	Script  string
}

// BackendOps compiles test-backend-ops with the options of the core, links it with the core's
// libraries, and returns the path of the program. It runs beside the files of a bundle.
func (r *Recipe) BackendOps(ctx context.Context) (string, error) {
	core, err := r.Compile(ctx, Variants()[0])
	if err != nil {
		return "", err
	}
	src, err := Source(ctx, r.Cache, r.Lock, r.Source, r.Log)
	if err != nil {
		return "", err
	}
	res, err := r.backendOps(ctx, src, core["core"])
	if err != nil {
		return "", err
	}
	return filepath.Join(res.Dir, backendOpsName), nil
}

// backendOps is the stage that compiles the test. It has the options of the core's compile and one
// more, so it configures the same tree; the key of the core's compile has nothing of it.
func (r *Recipe) backendOps(ctx context.Context, src, core *stage.Result) (*stage.Result, error) {
	c := components(r.Lock, r.Targets)["core"]
	t, err := toolchain.Describe(ctx, r.Engine, r.Cache, r.toolchainSpec(c.Set), r.Log)
	if err != nil {
		return nil, err
	}
	in := backendOpsInputs{Core: core.Output, Script: backendOpsScript}
	if in.Compile, err = r.compileInputs(c, src, t); err != nil {
		return nil, err
	}
	in.Compile.Options = append(in.Compile.Options, "-DLLAMA_BUILD_TESTS=ON")
	return r.Cache.Do(ctx, backendOpsName, in, func(ctx context.Context, dir string) error {
		if err := toolchain.Ensure(ctx, r.Engine, r.toolchainSpec(c.Set), t, r.Log); err != nil {
			return err
		}
		log, err := r.Progress.Open(backendOpsName)
		if err != nil {
			return err
		}
		defer log.Close()
		err = r.Engine.Run(ctx, engine.Job{
			Name: backendOpsName, Image: t.ID,
			Cmd: append([]string{"/bin/sh", "-eu", "-c", backendOpsScript, backendOpsName}, in.Compile.Options...),
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
			return fmt.Errorf("compile %s: %w", backendOpsName, err)
		}
		return nil
	})
}
