// Package buildbench measures the overhead of the build: a compile stage against a
// bare container that runs the same cmake and ninja, and a build without changes
// against go build.
//
// The compile stage builds a part of the real targets with the real options. Its
// overhead (copying the source into the container, copying and hashing the results)
// is the same for a part as for the whole.
package buildbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
	"forge.lthn.ai/core/go-rocm/internal/procgroup"
)

// Input selects what to compile and where.
type Input struct {
	Recipe *recipe.Recipe
	// Targets are build targets of the core component, such as ggml-base.
	Targets []string
	// Work is a directory for temporary files.
	Work   string
	Rounds int
	Log    io.Writer
}

// bareScript is the compile in a bare container; its arguments are the options.
const bareScript = `cmake -S /src -B /build/tree -G Ninja "$@" && ninja -C /build/tree -j "$JOBS" $BUILD`

// CompareStage compares the compile stage with a bare container.
func CompareStage(ctx context.Context, in Input) (page.Section, error) {
	var none page.Section
	if _, err := exec.LookPath("docker"); err != nil {
		return none, fmt.Errorf("the bare container needs the docker command: %w; install docker-cli", err)
	}
	libraries, modules := outputs(in.Targets)
	part, err := in.Recipe.PartialCompile(ctx, "core", in.Targets, libraries, modules)
	if err != nil {
		return none, err
	}
	round := 0
	ours := page.Seconds(func(ctx context.Context) error {
		round++
		dir := filepath.Join(in.Work, "stages-"+strconv.Itoa(round))
		cache, err := stage.Open(dir)
		if err != nil {
			return err
		}
		_, err = part.Compile(ctx, cache)
		return errors.Join(err, os.RemoveAll(dir))
	})
	peer := page.Seconds(func(ctx context.Context) error { return runBare(ctx, part, in.Recipe.Jobs) })
	samples, err := page.Interleave(ctx, in.Rounds, logged(in.Log, "compile stage", ours), logged(in.Log, "cmake and ninja in a bare container", peer))
	if err != nil {
		return none, err
	}
	ratio := page.Median(page.Ratios(samples[0], samples[1]))
	return page.Section{
		Name: "compile", Title: "The compile stage",
		Text: []string{
			fmt.Sprintf("The targets `%s` of the core component, compiled with the recipe's options and %d jobs: as a stage of the build, from its inputs to the hashed result, "+
				"and by `docker run` with the source mounted, `cmake` and `ninja` alone, in the same image. Medians of %d rounds, in alternating order; the ratio is the median of the ratios of the rounds.",
				strings.Join(in.Targets, "`, `"), in.Recipe.Jobs, in.Rounds),
			"The overhead of the stage does not depend on the size of the compile, so its share of a whole compile, which takes many times as long, is smaller.",
		},
		Head: []string{"", "seconds", "`docker run`, `cmake` and `ninja`", "difference", "ratio"},
		Rows: [][]string{{
			"compile stage", page.Figure(page.Median(samples[0])), page.Figure(page.Median(samples[1])),
			page.Figure(page.Median(page.Differences(samples[0], samples[1]))), page.Ratio(ratio),
		}},
		Goals: []page.Goal{{What: "the compile stage against a bare container:", Got: ratio, Limit: 1.05, Unit: "times"}},
	}, nil
}

// outputs returns the files of build targets: a CPU target builds a module, every
// other target a library.
func outputs(targets []string) (libraries, modules []string) {
	for _, t := range targets {
		name := "lib" + t + ".so"
		if strings.HasPrefix(t, "ggml-cpu") {
			modules = append(modules, name)
			continue
		}
		libraries = append(libraries, name)
	}
	return libraries, modules
}

// runBare is the peer: the docker command with the same image, options and
// environment.
func runBare(ctx context.Context, p *recipe.PartialCompile, jobs int) error {
	args := []string{"run", "--rm", "--network=none", "--volume", p.Source + ":/src:ro", "--volume", "/build"}
	for _, e := range p.Env {
		args = append(args, "--env", e)
	}
	args = append(args, "--env", "JOBS="+strconv.Itoa(jobs), "--workdir", "/build", p.Image, "/bin/sh", "-eu", "-c", bareScript, "bare")
	out, err := exec.CommandContext(ctx, "docker", append(args, p.Options...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cmake and ninja in a bare container: %w\n%s", err, last(string(out), 20))
	}
	return nil
}

func last(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// logged returns a variant that prints each measurement.
func logged(log io.Writer, what string, v page.Variant) page.Variant {
	return func(ctx context.Context) (float64, error) {
		seconds, err := v(ctx)
		if err == nil {
			_, err = fmt.Fprintf(log, "  %s: %.2f s\n", what, seconds)
		}
		return seconds, err
	}
}

// CompareUnchanged compares a build without changes with go build.
func CompareUnchanged(ctx context.Context, root string, rounds int, log io.Writer) (page.Section, error) {
	var none page.Section
	run := func(argv ...string) page.Variant {
		return page.Seconds(func(ctx context.Context) error {
			cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
			cmd.Dir = root
			if out, err := procgroup.Output(ctx, cmd, 10*time.Second); err != nil {
				return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, last(string(out), 20))
			}
			return nil
		})
	}
	build := run("go", "run", "mage.go", "build")
	peer := run("go", "build", "-o", os.DevNull, "./cmd/go-rocm")
	for _, v := range []page.Variant{build, peer} { // fill the caches
		if _, err := logged(log, "first build", v)(ctx); err != nil {
			return none, err
		}
	}
	samples, err := page.Interleave(ctx, rounds, logged(log, "build without a change", build), logged(log, "go build without a change", peer))
	if err != nil {
		return none, err
	}
	got := page.Median(samples[0])
	return page.Section{
		Name: "unchanged", Title: "A build without changes",
		Text: []string{fmt.Sprintf("`go run mage.go build` as a whole process when everything is built, including the start of `go run` and of mage. The peer is `go build` of the command alone, "+
			"when it is built too. Medians of %d rounds.", rounds)},
		Head: []string{"", "seconds"},
		Rows: [][]string{
			{"**`go run mage.go build`**", page.Figure(got)},
			{"`go build ./cmd/go-rocm`", page.Figure(page.Median(samples[1]))},
		},
		Goals: []page.Goal{{What: "a build without a change:", Got: got, Limit: (2 * time.Second).Seconds(), Unit: "s"}},
	}, nil
}
