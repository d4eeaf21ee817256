package ci

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Environment variables that carry the products under test to the tests.
const (
	// EnvBundle names the packed cpu bundle, or the folder of an unpacked one.
	EnvBundle = "GOROCM_BUNDLE"
	// EnvHIPBundle names the packed hip bundle.
	EnvHIPBundle = "GOROCM_HIP_BUNDLE"
	// EnvDist names the folder with the finished packages.
	EnvDist = "GOROCM_DIST"
)

// Hooks make the products that the tests run against. Each may be nil when
// the run has no use for it; its steps are then left out.
type Hooks struct {
	// Bundle builds, or finds in the stage cache, the packed bundle of a
	// variant ("cpu", "hip") and returns its path.
	Bundle func(ctx context.Context, variant string) (path string, err error)
	// Package makes the packages and returns the folder that holds them.
	Package func(ctx context.Context) (dist string, err error)
	// More steps are run after all others, for example a comparison of two
	// builds.
	More []Step
}

// UnitSteps returns the tests that need no bundle: the race tests of every
// module and a short fuzzing of every fuzz function.
func (p Project) UnitSteps() []Step {
	return []Step{
		{Name: "race tests", Limit: 30 * time.Minute, Run: p.race},
		{Name: "fuzzing", Limit: 20 * time.Minute, Run: p.fuzz},
	}
}

// ProductSteps returns the tests that run the real artifacts.
func (p Project) ProductSteps(h Hooks) []Step {
	var steps []Step
	env := &productEnv{}
	if h.Bundle != nil {
		for _, b := range []struct{ variant, name string }{{"cpu", EnvBundle}, {"hip", EnvHIPBundle}} {
			steps = append(steps, Step{Name: b.variant + " bundle", Run: uncounted(func(ctx context.Context, _ io.Writer) error {
				path, err := h.Bundle(ctx, b.variant)
				return env.set(b.name, path, err)
			})})
		}
		steps = append(steps, Step{
			Name: "end to end", Needs: []string{"cpu bundle", "hip bundle"}, Limit: 30 * time.Minute,
			Run: func(ctx context.Context, out io.Writer) (Count, error) {
				return p.goTest(ctx, out, p.Root, env.vars, "-count=1", "-timeout=25m", "-tags", "e2e", "./testing/e2e/...")
			},
		})
	}
	if h.Package != nil {
		steps = append(steps, Step{Name: "packages", Run: uncounted(func(ctx context.Context, _ io.Writer) error {
			dist, err := h.Package(ctx)
			return env.set(EnvDist, dist, err)
		})}, Step{
			Name: "install tests", Needs: []string{"packages"}, Limit: 30 * time.Minute,
			Run: func(ctx context.Context, out io.Writer) (Count, error) {
				return p.goTest(ctx, out, p.Root, env.vars, "-count=1", "-timeout=25m", "-tags", "install", "./testing/install/...")
			},
		})
	}
	return append(steps, h.More...)
}

// productEnv collects what the building steps made for the testing steps.
type productEnv struct{ vars []string }

func (e *productEnv) set(name, path string, err error) error {
	if err != nil {
		return err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("finding what was built: %w", err)
	}
	if _, err := os.Stat(abs); err != nil {
		return fmt.Errorf("the build reported a product that is not there: %w", err)
	}
	e.vars = append(e.vars, name+"="+abs)
	return nil
}

func (p Project) race(ctx context.Context, out io.Writer) (Count, error) {
	dirs, err := p.modules()
	if err != nil {
		return Count{}, err
	}
	var sum Count
	var failed []error
	for _, dir := range dirs {
		// The detector needs cgo; a build that turned it off would fail late.
		c, err := p.goTest(ctx, out, dir, []string{"CGO_ENABLED=1"}, "-race", "-timeout=20m", "./...")
		sum, failed = sum.Add(c), append(failed, err)
	}
	return sum, errors.Join(failed...)
}

// goTest runs `go test -json` and tallies it. A failure is told by the names
// of the failed tests, or by the command's own end when no test explains it.
func (p Project) goTest(ctx context.Context, out io.Writer, dir string, env []string, args ...string) (Count, error) {
	c := command{dir: dir, env: env, out: out, argv: append([]string{"go", "test", "-json"}, args...)}
	var report Report
	err := c.stream(ctx, func(r io.Reader) (err error) {
		report, err = Tally(r, out)
		return err
	})
	if failed := report.Err(); failed != nil && ctx.Err() == nil {
		err = failed
	}
	if err == nil && report.Count == (Count{}) {
		err = fmt.Errorf("%s ran no test", strings.Join(c.argv, " "))
	}
	return report.Count, err
}

// fuzzTarget is one fuzz function of one package.
type fuzzTarget struct{ pkg, name string }

func (p Project) fuzz(ctx context.Context, out io.Writer) (Count, error) {
	targets, err := p.fuzzTargets(ctx, out)
	if err != nil {
		return Count{}, err
	}
	var sum Count
	var failed []error
	for _, f := range targets {
		c, err := p.goTest(ctx, out, p.Root, nil,
			"-run=^$", "-fuzz=^"+f.name+"$", "-fuzztime="+p.FuzzTime.String(), "-timeout=10m", f.pkg)
		sum, failed = sum.Add(c), append(failed, err)
	}
	return sum, errors.Join(failed...)
}

// fuzzTargets asks the test binaries themselves, so that a fuzz function is
// found wherever it stands.
func (p Project) fuzzTargets(ctx context.Context, out io.Writer) ([]fuzzTarget, error) {
	var targets []fuzzTarget
	c := p.command(out, nil, "go", "test", "-json", "-list=^Fuzz", "./...")
	err := c.stream(ctx, func(r io.Reader) error {
		for lines := bufio.NewScanner(r); ; {
			if !lines.Scan() {
				return lines.Err()
			}
			var e event
			if json.Unmarshal(lines.Bytes(), &e) != nil || e.Package == "" {
				continue
			}
			if name := strings.TrimSpace(e.Output); strings.HasPrefix(name, "Fuzz") {
				targets = append(targets, fuzzTarget{e.Package, name})
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("listing the fuzz functions: %w", err)
	}
	slices.SortFunc(targets, func(a, b fuzzTarget) int {
		return strings.Compare(a.pkg+" "+a.name, b.pkg+" "+b.name)
	})
	return targets, nil
}
