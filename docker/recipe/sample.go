package recipe

import (
	"context"
	_ "embed" // the script is part of the program
	"fmt"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
)

//go:embed sample.sh
var sampleScript string

// sampled lists files of the HIP component that represent all of it where a whole compile would
// take too long: small and large kernels, templates, and one that calls rocBLAS.
var sampled = []string{"argsort", "getrows", "norm", "rope", "softmax", "template-instances/mmq-instance-q8_0"}

// sampleInputs key a sample.
type sampleInputs struct {
	Compile compileInputs
	Objects []string
	Script  string
}

// Sample compiles some files of the HIP module with the options of the whole module and returns the
// objects.
func (r *Recipe) Sample(ctx context.Context) (*stage.Result, error) {
	c := components(r.Lock, r.Targets)["hip"]
	src, err := Source(ctx, r.Cache, r.Lock, r.Source, r.Log)
	if err != nil {
		return nil, err
	}
	t, err := toolchain.Describe(ctx, r.Engine, r.Cache, r.toolchainSpec(c.Set), r.Log)
	if err != nil {
		return nil, err
	}
	in := sampleInputs{Script: sampleScript}
	if in.Compile, err = r.compileInputs(c, src, t); err != nil {
		return nil, err
	}
	for _, name := range sampled {
		in.Objects = append(in.Objects, "ggml/src/ggml-hip/CMakeFiles/ggml-hip.dir/__/ggml-cuda/"+name+".cu.o")
	}
	return r.Cache.Do(ctx, "sample-hip", in, func(ctx context.Context, dir string) error {
		if err := toolchain.Ensure(ctx, r.Engine, r.toolchainSpec(c.Set), t, r.Log); err != nil {
			return err
		}
		log, err := r.Progress.Open("sample-hip")
		if err != nil {
			return err
		}
		defer log.Close()
		err = r.Engine.Run(ctx, engine.Job{
			Name: "sample-hip", Image: t.ID,
			Cmd: append([]string{"/bin/sh", "-eu", "-c", sampleScript, "sample"}, in.Compile.Options...),
			Env: append(in.Compile.Env, "JOBS="+strconv.Itoa(r.Jobs), "OBJECTS="+strings.Join(in.Objects, " ")),
			Dir: "/build", UID: toolchain.User, GID: toolchain.User,
			Volumes: []string{"/src", "/build"},
			In:      []engine.Input{{Dir: "/src", Write: engine.TarDirectory(src.Dir, toolchain.User, r.Lock.Time())}},
			Out:     []engine.Output{{Path: "/build/out", Read: engine.ExtractFiles(dir)}},
			Log:     log, Memory: r.Memory,
		})
		if err != nil {
			return fmt.Errorf("compile %s: %w", strings.Join(sampled, ", "), err)
		}
		return nil
	})
}
