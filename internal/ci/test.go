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
	"strconv"
	"strings"
	"time"
)

// Environment variables that carry the products under test to the tests.
const (
	// EnvBundle names the packed cpu bundle, or the folder of an unpacked one.
	EnvBundle = "GOROCM_BUNDLE"
	// EnvHIPBundle names the packed hip bundle.
	EnvHIPBundle = "GOROCM_HIP_BUNDLE"
	// EnvSystemBundle names the packed hip bundle of the system flavour.
	EnvSystemBundle = "GOROCM_SYSTEM_BUNDLE"
	// EnvSource names the folder of the pinned llama.cpp source, of which the
	// tests take tokenizers.
	EnvSource = "GOROCM_LLAMA_SOURCE"
	// EnvCLI names the finished command with the bundle inside.
	EnvCLI = "GOROCM_CLI"
	// EnvDeb names the finished packages: the command's and that of the bundle.
	EnvDeb = "GOROCM_DEB"
	// EnvSmallDeb names the same with the cpu bundle: what concerns the packages'
	// life, not the bundle, is tested on them in a tenth of the time.
	EnvSmallDeb = "GOROCM_SMALL_DEB"
	// EnvSmallImage names the container image around the cpu bundle.
	EnvSmallImage = "GOROCM_SMALL_IMAGE"
)

// Product is something that the tests on real artifacts run against.
type Product struct {
	// Name is that of its step, such as "cpu bundle".
	Name string
	// Env is the variable that carries its path to the tests.
	Env string
	// Make builds it, or finds it in the stage cache. Several files, such as
	// packages that belong together, are separated as in PATH.
	Make func(ctx context.Context) (path string, err error)
}

// Hooks say what a run makes and does beside the checks of this package.
type Hooks struct {
	// Products are made in this order, before the tests that use them.
	Products []Product
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

// ProductSteps returns the steps that make the products and run the tests on
// them. The end-to-end tests run even where the hip bundle failed: those of
// them that want it then say so.
func (p Project) ProductSteps(h Hooks) []Step {
	var steps []Step
	env := &productEnv{}
	names := map[string]string{}
	for _, product := range h.Products {
		names[product.Env] = product.Name
		steps = append(steps, Step{Name: product.Name, Run: uncounted(func(ctx context.Context, _ io.Writer) error {
			return env.add(ctx, product)
		})})
	}
	for _, suite := range []struct {
		name, tag string
		needs     []string
	}{
		{"end to end", "e2e", []string{EnvBundle, EnvSource}},
		{"install tests", "install", []string{EnvDeb, EnvSmallDeb, EnvSmallImage}},
	} {
		var needs []string
		for _, e := range suite.needs {
			if name, ok := names[e]; ok {
				needs = append(needs, name)
			}
		}
		if len(needs) == 0 {
			continue
		}
		steps = append(steps, Step{
			Name: suite.name, Needs: needs, Limit: 30 * time.Minute,
			Run: func(ctx context.Context, out io.Writer) (Count, error) {
				return p.goTest(ctx, out, p.Root, env.vars, "-count=1", "-timeout=28m", "-tags", suite.tag, "./testing/"+suite.tag+"/...")
			},
		})
	}
	return append(steps, h.More...)
}

// productEnv collects what the making steps hand to the testing steps.
type productEnv struct{ vars []string }

func (e *productEnv) add(ctx context.Context, product Product) error {
	path, err := product.Make(ctx)
	if err != nil {
		return err
	}
	var found []string
	for _, part := range filepath.SplitList(path) {
		abs, err := filepath.Abs(part)
		if err != nil {
			return fmt.Errorf("finding what was built: %w", err)
		}
		if _, err := os.Stat(abs); err != nil {
			return fmt.Errorf("the build reported a product that is not there: %w", err)
		}
		found = append(found, abs)
	}
	if len(found) == 0 {
		return errors.New("the build reported no product")
	}
	e.vars = append(e.vars, product.Env+"="+strings.Join(found, string(filepath.ListSeparator)))
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
		if dir != p.Root && errors.Is(err, errNoTest) {
			err = nil // a module of benchmarks alone
		}
		sum, failed = sum.Add(c), append(failed, err)
	}
	return sum, errors.Join(failed...)
}

// errNoTest says that a run proved nothing.
var errNoTest = errors.New("ran no test")

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
		err = fmt.Errorf("%s %w", strings.Join(c.argv, " "), errNoTest)
	}
	return report.Count, err
}

// fuzzTarget is one fuzz function of one package of the module in dir.
type fuzzTarget struct{ dir, pkg, name string }

func (p Project) fuzz(ctx context.Context, out io.Writer) (Count, error) {
	targets, err := p.fuzzTargets(ctx, out)
	if err != nil {
		return Count{}, err
	}
	var sum Count
	var failed []error
	for _, f := range targets {
		c, err := p.goTest(ctx, out, f.dir, nil,
			"-run=^$", "-fuzz=^"+f.name+"$", "-fuzztime="+strconv.Itoa(p.FuzzRuns)+"x", "-fuzzminimizetime=10x", "-timeout=10m", f.pkg)
		sum, failed = sum.Add(c), append(failed, err)
	}
	return sum, errors.Join(failed...)
}

// fuzzTargets asks the test binaries themselves, so that a fuzz function is
// found wherever it stands.
func (p Project) fuzzTargets(ctx context.Context, out io.Writer) ([]fuzzTarget, error) {
	dirs, err := p.modules()
	if err != nil {
		return nil, err
	}
	var targets []fuzzTarget
	for _, dir := range dirs {
		c := command{dir: dir, out: out, argv: []string{"go", "test", "-json", "-list=^Fuzz", "./..."}}
		err := c.stream(ctx, func(r io.Reader) error {
			lines := bufio.NewScanner(r)
			for lines.Scan() {
				var e event
				if json.Unmarshal(lines.Bytes(), &e) != nil || e.Package == "" {
					continue
				}
				if name := strings.TrimSpace(e.Output); strings.HasPrefix(name, "Fuzz") {
					targets = append(targets, fuzzTarget{dir, e.Package, name})
				}
			}
			return lines.Err()
		})
		if err != nil {
			return nil, fmt.Errorf("listing the fuzz functions in %s: %w", dir, err)
		}
	}
	slices.SortFunc(targets, func(a, b fuzzTarget) int {
		return strings.Compare(a.pkg+" "+a.name, b.pkg+" "+b.name)
	})
	return targets, nil
}
