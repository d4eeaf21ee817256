package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/internal/benchpage"
	"forge.lthn.ai/core/go-rocm/internal/build/buildbench"
	"forge.lthn.ai/core/go-rocm/internal/ci"
	"forge.lthn.ai/core/go-rocm/internal/procgroup"
)

// Bench measures every claim about speed against a named peer and writes the results
// to docs/benchmarks.md. GOROCM_BENCH selects benchmarks.
func Bench() error {
	return withSession(withPrograms(testPrograms, func(ctx context.Context, s *Session, p ci.Project) error {
		if err := s.prepare(ctx, buildPrograms); err != nil {
			return err
		}
		var own, others []string
		for _, name := range s.Settings.Bench {
			if slices.Contains(benchpage.BuildSide(), name) {
				own = append(own, name)
			} else {
				others = append(others, name)
			}
		}
		all := len(s.Settings.Bench) == 0
		if all {
			own = benchpage.BuildSide()
		}
		var errs []error
		if all || len(others) > 0 {
			errs = append(errs, s.benchRunSide(ctx, p.Root, others))
		}
		for _, name := range own {
			if ctx.Err() != nil {
				break
			}
			errs = append(errs, s.benchBuildSide(ctx, p.Root, name))
		}
		return errors.Join(errs...)
	}))
}

// benchRunSide runs the benchmarks of testing/bench on the built bundles.
func (s *Session) benchRunSide(ctx context.Context, root string, names []string) error {
	packed, err := s.Bundles(ctx)
	if err != nil {
		return err
	}
	cpu, err := findBundle(packed, "cpu")
	if err != nil {
		return err
	}
	hip, err := findBundle(packed, "hip")
	if err != nil {
		return err
	}
	src, err := recipe.Source(ctx, s.Recipe.Cache, s.Recipe.Lock, s.Recipe.Source, s.Out)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "run", "./cmd/benchmarks", "-cpu", cpu.File, "-hip", hip.File, "-source", src.Dir,
		"-jobs", strconv.Itoa(s.Settings.Jobs), "-work", s.Settings.Cache, "-only", strings.Join(names, ","))
	cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Join(root, "testing", "bench"), os.Stdout, os.Stderr
	if err := procgroup.Run(ctx, cmd, shutdownGrace); err != nil {
		return fmt.Errorf("benchmarks of testing/bench: %w", err)
	}
	return nil
}

// benchBuildSide measures the build itself. The compile benchmark compiles three CPU
// modules and the library that they share, which takes a minute or two.
func (s *Session) benchBuildSide(ctx context.Context, root, name string) (err error) {
	work, err := s.tempWork("bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeWork(work)) }()
	on, err := benchpage.ThisMachine("/proc")
	if err != nil {
		return err
	}
	if err := s.printf("%s", name); err != nil {
		return err
	}
	var section benchpage.Section
	switch name {
	case "compile":
		section, err = buildbench.CompareStage(ctx, buildbench.Input{
			Recipe: s.Recipe, Targets: []string{"ggml-base", "ggml-cpu-x64", "ggml-cpu-haswell", "ggml-cpu-zen4"}, Work: work, Rounds: 3, Log: s.Out,
		})
	case "unchanged":
		section, err = buildbench.CompareUnchanged(ctx, root, 5, s.Out)
	}
	if err != nil {
		return fmt.Errorf("benchmark %s: %w", name, err)
	}
	for _, g := range section.Goals {
		if err := s.printf("  %s", g); err != nil {
			return err
		}
	}
	return benchpage.Write(filepath.Join(root, "docs", "benchmarks.md"), section, on)
}
