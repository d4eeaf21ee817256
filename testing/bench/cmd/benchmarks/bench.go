package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	streams "forge.lthn.ai/core/go-rocm/testing/bench"
	"forge.lthn.ai/core/go-rocm/testing/bench/child"
	"forge.lthn.ai/core/go-rocm/testing/bench/disk"
	"forge.lthn.ai/core/go-rocm/testing/bench/several"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// need is a set of prerequisites of a benchmark.
type need int

const (
	packs need = 1 << iota
	modelFiles
	command // the program go-rocm
)

// benchmark is one row of the table.
type benchmark struct {
	name, what string
	rounds     int
	needs      need
	extra      bool // runs only if it is named
	run        func(ctx context.Context, b *bench, rounds int) (page.Section, error)
}

func benchmarks() []benchmark {
	return []benchmark{
		{page.Tokens, "cost of a token against other clients", 9, 0, false, tokens},
		{page.Ready, "warm start against the bare program", 21, packs | modelFiles, false, ready},
		{page.Choice, "a load with auto against one with a named backend", 41, packs | modelFiles, false, choice},
		{page.First, "time to the first token against a raw reader", 25, packs | modelFiles, false, first},
		{page.Flow, "tokens per second of concurrent streams against a raw reader", 15, packs | modelFiles, false, flow},
		{page.Cancel, "time until the slot of a cancelled stream is free, against other clients", 51, packs | modelFiles, false, cancel},
		{page.Batch, "BatchGenerate against a loop", 3, packs | modelFiles, false, batch},
		{page.Memory, "memory of a stream against other clients", 3, packs | modelFiles, false, memory},
		{page.Models, "several models behind one address against llama-server's router", 5, packs | modelFiles | command, false, severalModels},
		{page.CPU, "generation on the CPU against the plain llama-server", 7, packs | modelFiles | command, false, cpuGeneration},
		{page.Extract, "cold extraction against zstd and tar", 5, packs, false, extraction},
		{page.Pack, "packing and unpacking against tar and zstd", 3, packs, false, packing},
		{page.Download, "download and verification of a model against curl and sha256sum", 7, 0, false, downloading},
		{page.Go, "every Go benchmark of the modules, printed as the go command does", 5, packs, true, goTest},
	}
}

// bench is the state that the benchmarks share.
type bench struct {
	options    options
	out        io.Writer
	real, tiny child.Model
	work, run  string // temporary directories
	command    string // the path of go-rocm
}

// prepare creates a new cache and a new directory for sockets, so that the run neither
// uses nor changes those of the user.
func prepare(o options, out io.Writer) (*bench, error) {
	b := &bench{options: o, out: out}
	kept, err := models.CacheDir()
	if err != nil {
		return nil, err
	}
	if o.work == "" {
		if o.work, err = os.UserCacheDir(); err != nil {
			return nil, fmt.Errorf("find a directory on the disk to measure: %w; set -work", err)
		}
	}
	if b.work, err = os.MkdirTemp(o.work, "bench-"); err != nil {
		return nil, err
	}
	// `mage prune` removes the directory of a killed run by this mark, which has its name.
	if err := os.WriteFile(filepath.Join(b.work, ".go-rocm-work"), []byte(filepath.Base(b.work)), 0o600); err != nil {
		return nil, errors.Join(err, b.close())
	}
	if b.run, err = os.MkdirTemp("", "rocm-bench-"); err != nil {
		return nil, errors.Join(err, b.close())
	}
	for name, value := range map[string]string{"GOROCM_TEST_MODELS": kept, "GOROCM_CACHE": filepath.Join(b.work, "cache"), "XDG_RUNTIME_DIR": b.run} {
		err = errors.Join(err, os.Setenv(name, value))
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bench) close() error { return errors.Join(os.RemoveAll(b.work), os.RemoveAll(b.run)) }

// need prepares the prerequisites of a benchmark, once.
func (b *bench) need(ctx context.Context, n need) error {
	if n&packs != 0 {
		for _, f := range []struct{ flag, file string }{{"-cpu", b.options.cpu}, {"-hip", b.options.hip}} {
			if _, err := os.Stat(f.file); err != nil {
				return fmt.Errorf("%s must be a packed bundle: %w; `mage bench` builds both", f.flag, err)
			}
		}
	}
	if n&command != 0 && b.command == "" {
		if err := b.buildCommand(ctx); err != nil {
			return err
		}
	}
	if n&modelFiles == 0 || b.tiny.Path != "" {
		return nil
	}
	smol, err := models.Fetch(ctx, models.SmolLM2())
	if err != nil {
		return err
	}
	if _, err := os.Stat(b.options.source); err != nil {
		return fmt.Errorf("-source must be the directory of the llama.cpp source: %w; `mage bench` downloads it", err)
	}
	if err := os.Setenv(models.EnvSource, b.options.source); err != nil {
		return err
	}
	tiny, err := models.Tiny(b.work, "llama-spm", ggufgen.TinyOptions{})
	if err != nil {
		return err
	}
	b.real = child.Model{Name: "SmolLM2-135M-Instruct in Q4_1", Path: smol}
	b.tiny = child.Model{Name: "tiny random model of two layers", Path: tiny}
	return nil
}

// buildCommand builds go-rocm from this checkout.
func (b *bench) buildCommand(ctx context.Context) error {
	path := filepath.Join(b.work, "go-rocm")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "./cmd/go-rocm")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build go-rocm: %w\n%s", err, out)
	}
	b.command = path
	return nil
}

func (b *bench) child(rounds int) child.Input {
	return child.Input{Bundle: b.options.cpu, Real: b.real, Tiny: b.tiny, Rounds: rounds, Log: b.out}
}

func tokens(ctx context.Context, b *bench, rounds int) (page.Section, error) {
	s, svg, err := streams.Tokens(ctx, streams.TokensOptions{Tokens: 5000, Streams: 10, Rounds: rounds, Log: b.out})
	if err != nil {
		return s, err
	}
	return s, b.picture(streams.PlotName, svg)
}

func ready(ctx context.Context, b *bench, rounds int) (page.Section, error) {
	return child.Ready(ctx, b.child(rounds), b.options.cpu, b.options.hip)
}

func choice(ctx context.Context, b *bench, rounds int) (page.Section, error) {
	return child.Choice(ctx, b.child(rounds), b.options.cpu, b.options.hip)
}

func first(ctx context.Context, b *bench, rounds int) (page.Section, error) {
	return child.FirstToken(ctx, b.child(rounds))
}

func flow(ctx context.Context, b *bench, rounds int) (page.Section, error) {
	s, points, err := child.Flow(ctx, b.child(rounds),
		[]child.Level{{Streams: 1, Tokens: 100, Rounds: 3 * rounds}, {Streams: 4, Tokens: 40, Rounds: 3 * rounds}, {Streams: 16, Tokens: 16, Rounds: 3 * rounds}, {Streams: 64, Tokens: 8, Rounds: 3 * rounds}},
		[]child.Level{{Streams: 1, Tokens: 200, Rounds: rounds}, {Streams: 4, Tokens: 100, Rounds: rounds}, {Streams: 16, Tokens: 60, Rounds: rounds}, {Streams: 64, Tokens: 30, Rounds: rounds}})
	if err != nil {
		return s, err
	}
	s.Plot, s.PlotText = child.PlotName, "lines of tokens per second over the number of streams"
	return s, b.picture(child.PlotName, child.Plot(points))
}

func cancel(ctx context.Context, b *bench, rounds int) (page.Section, error) {
	return child.Cancel(ctx, b.child(rounds))
}

func batch(ctx context.Context, b *bench, rounds int) (page.Section, error) {
	return child.Batch(ctx, b.child(rounds), 64, 12)
}

func memory(ctx context.Context, b *bench, rounds int) (page.Section, error) {
	return child.Memory(ctx, b.child(rounds), 64, 1000)
}

func (b *bench) several(rounds int) several.Input {
	return several.Input{
		Command: b.command, Bundle: b.options.cpu, Router: b.options.router, Real: b.real.Path, Tiny: b.tiny.Path, RealName: b.real.Name, TinyName: b.tiny.Name,
		Work: b.work, Rounds: rounds, Idle: 5000, Log: b.out,
	}
}

func severalModels(ctx context.Context, b *bench, rounds int) (page.Section, error) {
	in := b.several(rounds)
	in.Levels = []several.Level{{Streams: 1, Tokens: 64, Rounds: 2 * rounds}, {Streams: 4, Tokens: 24, Rounds: 2 * rounds}, {Streams: 16, Tokens: 12, Rounds: rounds}, {Streams: 64, Tokens: 6, Rounds: rounds}}
	in.TinyLevels = []several.Level{{Streams: 1, Tokens: 96, Rounds: 4 * rounds}, {Streams: 64, Tokens: 32, Rounds: rounds}}
	return several.Models(ctx, in)
}

func cpuGeneration(ctx context.Context, b *bench, rounds int) (page.Section, error) {
	return several.CPU(ctx, b.several(rounds))
}

func (b *bench) disk(pack string, rounds int) disk.Input {
	return disk.Input{Pack: pack, Target: gfx.GFX1100, Work: b.work, Rounds: rounds, Threads: b.options.jobs, Log: b.out}
}

func extraction(ctx context.Context, b *bench, rounds int) (page.Section, error) {
	return disk.Extraction(ctx, b.disk(b.options.hip, rounds))
}

func packing(ctx context.Context, b *bench, rounds int) (page.Section, error) {
	return disk.Packing(ctx, disk.Job{Input: b.disk(b.options.cpu, rounds), Level: 19}, disk.Job{Input: b.disk(b.options.hip, rounds), Level: 3})
}

func downloading(ctx context.Context, b *bench, rounds int) (page.Section, error) {
	return disk.Download(ctx, b.disk("", rounds), 1<<30)
}

// goTest runs the Go benchmarks of the modules.
func goTest(ctx context.Context, b *bench, rounds int) (page.Section, error) {
	for _, dir := range []string{filepath.Join("..", ".."), "."} {
		cmd := exec.CommandContext(ctx, "go", "test", "-run=^$", "-bench=.", "-benchmem", fmt.Sprintf("-count=%d", rounds), "-timeout=60m", "./...")
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, b.out, os.Stderr
		cmd.Env = append(os.Environ(), "GOROCM_BENCH_PACK="+b.options.hip, "GOROCM_BUNDLE="+b.options.cpu)
		if err := cmd.Run(); err != nil {
			return page.Section{}, fmt.Errorf("benchmarks in %s: %w", dir, err)
		}
	}
	return page.Section{}, nil
}
