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
	source, packs, err := s.subjects(ctx, "cpu", "hip")
	if err != nil {
		return err
	}
	router := ""
	if needsRouter(names) {
		if router, err = s.Recipe.Router(ctx); err != nil {
			return err
		}
	}
	if err := runGo(ctx, filepath.Join(root, "testing", "bench"), nil, "run", "./cmd/benchmarks", "-cpu", packs[0], "-hip", packs[1], "-source", source, "-router", router,
		"-jobs", strconv.Itoa(s.Settings.Jobs), "-work", s.Settings.Cache, "-only", strings.Join(names, ",")); err != nil {
		return fmt.Errorf("benchmarks of testing/bench: %w", err)
	}
	return nil
}

// needsRouter reports whether one of the benchmarks, all if names is empty, has
// llama-server's router as its peer. The router is compiled for it alone.
func needsRouter(names []string) bool {
	return len(names) == 0 || slices.Contains(names, benchpage.Models)
}

// subjects builds what a test or benchmark on the real artifacts needs, and returns
// the directory of llama.cpp's source and the packed bundle of each variant.
func (s *Session) subjects(ctx context.Context, variants ...string) (source string, packs []string, err error) {
	packed, err := s.Bundles(ctx)
	if err != nil {
		return "", nil, err
	}
	for _, variant := range variants {
		p, err := findBundle(packed, variant)
		if err != nil {
			return "", nil, err
		}
		packs = append(packs, p.File)
	}
	src, err := recipe.Source(ctx, s.Recipe.Cache, s.Recipe.Lock, s.Recipe.Source, s.Out)
	if err != nil {
		return "", nil, err
	}
	return src.Dir, packs, nil
}

// runGo runs the go command in a directory with further environment variables.
func runGo(ctx context.Context, dir string, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), env...)
	return procgroup.Run(ctx, cmd, shutdownGrace)
}

// benchPage measures what the web page adds to the command and to its start.
func (s *Session) benchPage(ctx context.Context, root, work string) (section benchpage.Section, err error) {
	version, err := s.Version(root)
	if err != nil {
		return section, err
	}
	source, packs, err := s.subjects(ctx, "cpu")
	if err != nil {
		return section, err
	}
	in := buildbench.PageInput{
		Command: filepath.Join(work, "go-rocm"), Without: filepath.Join(work, "without"), Packed: filepath.Join(root, filepath.FromSlash(pageFile)),
		Bundle: packs[0], Models: filepath.Join(work, "models"), Work: work, Rounds: 101, Log: s.Out,
	}
	if err := os.Mkdir(in.Models, 0o700); err != nil {
		return section, err
	}
	if err := runGo(ctx, root, nil, "run", "./testing/ggufgen/cmd/ggufgen",
		"-vocab", filepath.Join(source, "models", "ggml-vocab-llama-spm.gguf"), "-o", filepath.Join(in.Models, "tiny.gguf")); err != nil {
		return section, fmt.Errorf("write a model: %w", err)
	}
	if err := s.embedPage(root, nil); err != nil {
		return section, err
	}
	if err := s.command(ctx, root, in.Without, version, "nopayload"); err != nil {
		return section, err
	}
	page, err := s.Recipe.Page(ctx)
	if err != nil {
		return section, err
	}
	if err := s.embedPage(root, page); err != nil {
		return section, err
	}
	if err := s.command(ctx, root, in.Command, version, "nopayload"); err != nil {
		return section, err
	}
	return buildbench.ComparePage(ctx, in)
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
	case benchpage.Page:
		section, err = s.benchPage(ctx, root, work)
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
