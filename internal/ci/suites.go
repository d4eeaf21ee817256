package ci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Environment variables with the paths of the products under test.
const (
	// EnvBundle is the packed cpu bundle, or the directory of an unpacked one.
	EnvBundle = "GOROCM_BUNDLE"
	// EnvHIPBundle is the packed hip bundle.
	EnvHIPBundle = "GOROCM_HIP_BUNDLE"
	// EnvSystemBundle is the packed hip bundle of the system flavour.
	EnvSystemBundle = "GOROCM_SYSTEM_BUNDLE"
	// EnvBackendOps is llama.cpp's test-backend-ops, which the end-to-end tests run on the
	// hip bundle.
	EnvBackendOps = "GOROCM_BACKEND_OPS"
	// EnvLavapipe is the directory with Mesa's lavapipe of Debian 13 and the libraries
	// that it needs.
	EnvLavapipe = "GOROCM_LAVAPIPE"
	// EnvSource is the directory of the pinned llama.cpp source, from which the tests
	// read tokenizers.
	EnvSource = "GOROCM_LLAMA_SOURCE"
	// EnvCLI is the command with the embedded bundle.
	EnvCLI = "GOROCM_CLI"
	// EnvDeb is the packages of the command and of the bundle.
	EnvDeb = "GOROCM_DEB"
	// EnvSmallDeb is the packages of the command and of the cpu bundle. Tests of the
	// package life cycle take a tenth of the time on them.
	EnvSmallDeb = "GOROCM_SMALL_DEB"
	// EnvSmallImage is the container image with the cpu bundle.
	EnvSmallImage = "GOROCM_SMALL_IMAGE"
)

// EveryCase is the setting, read by testing/cases, with which tests try every case of those
// that are many and alike.
const EveryCase = "GOROCM_CASES=all"

// Product is an artifact that tests run on.
type Product struct {
	// Name is the name of the step that makes it, such as "cpu bundle".
	Name string
	// Env is the environment variable with its path.
	Env string
	// Make builds it or finds it in the stage cache. Several paths are joined as in
	// PATH.
	Make func(ctx context.Context) (path string, err error)
}

// Hooks are the products and steps that a run has in addition to those of this
// package.
type Hooks struct {
	// Products are made in this order, before the tests that run on them.
	Products []Product
	// More are steps that run after the end-to-end tests, such as a comparison of two
	// builds: its compile would take the processors from tests that wait for answers.
	More []Step
}

// laneBeside is the lane of the install tests, which mostly wait: for containers, for the
// disk. The other steps keep the processors busy and have the unnamed lane.
const laneBeside = "beside"

// SourceSteps returns the steps that need no bundle: the tests of every module under
// the race detector and a short run of every fuzz test.
func (p Project) SourceSteps() []Step {
	return []Step{
		{Name: "race tests", Limit: 30 * time.Minute, Run: p.race},
		{Name: "fuzz tests", Limit: 20 * time.Minute, Run: p.fuzz},
	}
}

// ProductSteps returns the steps that make the products, and those that run the tests on
// them. The end-to-end tests run without the hip bundle too; the tests that need it then
// fail.
func (p Project) ProductSteps(h Hooks) (products, suites []Step) {
	env := &productEnv{}
	names := map[string]string{}
	for _, product := range h.Products {
		names[product.Env] = product.Name
		products = append(products, Step{Name: product.Name, Run: uncounted(func(ctx context.Context, _ io.Writer) error {
			return env.add(ctx, product)
		})})
	}
	for _, suite := range []struct {
		name, tag, lane string
		needs, flags    []string
	}{
		{"end to end", "e2e", "", []string{EnvBundle, EnvSource}, nil},
		// Four machines at a time: each waits for its disk and for its services.
		{"install tests", "install", laneBeside, []string{EnvDeb, EnvSmallDeb, EnvSmallImage}, []string{"-parallel=4"}},
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
		suites = append(suites, Step{
			Name: suite.name, Lane: suite.lane, Needs: needs, Limit: 45 * time.Minute,
			Run: func(ctx context.Context, out io.Writer) (Count, error) {
				args := append([]string{"-count=1", "-timeout=43m", "-tags", suite.tag}, suite.flags...)
				vars := slices.Concat(env.vars, p.casesEnv())
				return p.goTest(ctx, out, filepath.Join(p.Root, "testing", suite.tag), vars, append(args, "./...")...)
			},
		})
	}
	return products, append(suites, h.More...)
}

// productEnv collects the environment of the test steps from the make steps.
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
			return fmt.Errorf("resolve the path of a product: %w", err)
		}
		if _, err := os.Stat(abs); err != nil {
			return fmt.Errorf("the build reported a product that does not exist: %w", err)
		}
		found = append(found, abs)
	}
	if len(found) == 0 {
		return errors.New("the build reported no product")
	}
	e.vars = append(e.vars, product.Env+"="+strings.Join(found, string(filepath.ListSeparator)))
	return nil
}

// linkLess makes the linker leave out the symbol table and DWARF, a fifth of the time that
// it takes for a test program. Stack traces and the reports of the race detector have
// their lines from elsewhere.
const linkLess = "-ldflags=-s -w"

// unit runs the tests of every module with -short: tests that need a container, the
// network or much time skip themselves then.
func (p Project) unit(ctx context.Context, out io.Writer) (Count, error) {
	return p.testModules(ctx, out, nil, "-short", "-vet=off", linkLess, "-timeout=8m")
}

// race runs the tests of every module under the race detector. The steps of lint have
// vetted them.
func (p Project) race(ctx context.Context, out io.Writer) (Count, error) {
	return p.testModules(ctx, out, p.raceEnv(), "-race", "-vet=off", linkLess, "-timeout=20m")
}

// raceEnv returns the environment of the race tests. The race detector needs cgo; without
// this, CGO_ENABLED=0 would fail late. Its processes wait a second before they exit, which
// tests that start many would add up.
func (p Project) raceEnv() []string {
	return append([]string{"CGO_ENABLED=1", "GORACE=atexit_sleep_ms=0 " + os.Getenv("GORACE")}, p.casesEnv()...)
}

// casesEnv returns EveryCase if all are to be tried.
func (p Project) casesEnv() []string {
	if p.AllCases {
		return []string{EveryCase}
	}
	return nil
}

// testModules runs the tests of every module. Those of the main module take longest;
// the other modules are tested beside it, one after the other.
//
// Twice as many packages of the main module are tested side by side as there are
// processors, and as many of the others: their tests mostly wait for processes and
// clocks, and a processor that is idle at the end of one module is used by the other.
func (p Project) testModules(ctx context.Context, out io.Writer, env []string, args ...string) (Count, error) {
	dirs, err := p.testedModules()
	if err != nil {
		return Count{}, err
	}
	out = &lockedWriter{w: out}
	test := func(dir string, side int, patterns ...string) (Count, error) {
		c, err := p.goTest(ctx, out, dir, env, slices.Concat(args, []string{"-p=" + strconv.Itoa(side)}, patterns)...)
		if dir != p.Root && errors.Is(err, errNoTest) {
			err = nil // a module with benchmarks alone
		}
		return c, err
	}
	processors := runtime.GOMAXPROCS(0)
	var others, sum Count
	var failedOthers, failed []error
	var beside sync.WaitGroup
	beside.Go(func() {
		for _, dir := range dirs {
			if dir != p.Root {
				c, err := test(dir, processors, "./...")
				others, failedOthers = others.Add(c), append(failedOthers, err)
			}
		}
	})
	if slices.Contains(dirs, p.Root) {
		c, err := test(p.Root, 2*processors, append(p.longest(), "./...")...)
		sum, failed = c, append(failed, err)
	}
	beside.Wait()
	return sum.Add(others), errors.Join(append(failed, failedOthers...)...)
}

// longest returns the packages of the main module whose tests take longest. The go
// command begins with the packages that are named first.
func (p Project) longest() []string {
	return slices.DeleteFunc([]string{"./runtime/extract", "./runtime/supervise", ".", "./cmd/go-rocm/cli", "./cmd/go-rocm/selftest", "./internal/gateway"}, func(dir string) bool {
		tests, err := filepath.Glob(filepath.Join(p.Root, dir, "*_test.go"))
		return err != nil || len(tests) == 0
	})
}

// lockedWriter is a writer that several goroutines use. Each writes whole lines.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// Write implements io.Writer.
func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// errNoTest reports that a run had no test.
var errNoTest = errors.New("ran no test")

// goTest runs `go test -json` and counts its tests. The error names the failed tests,
// or is the error of the command if no test failed.
func (p Project) goTest(ctx context.Context, out io.Writer, dir string, env []string, args ...string) (Count, error) {
	return command{dir: dir, env: env, out: out, argv: append([]string{"go", "test", "-json"}, args...)}.tally(ctx)
}

// tally runs a program that writes the events of `go test -json`, and counts the tests.
func (c command) tally(ctx context.Context) (Count, error) {
	var report Report
	err := c.stream(ctx, func(r io.Reader) (err error) {
		report, err = Tally(r, c.out)
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
