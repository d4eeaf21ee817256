// Package ci implements `mage lint`, `mage unit`, `mage test` and `mage ci`:
// formatting, linting, vetting, unit, race, fuzz, end-to-end and install tests and
// the vulnerability check. Each is a [Step] of a run, and a run ends with one count
// of its Go tests.
//
// The same checks run on a developer's machine, in a hosted workflow and in
// `.ci/run`. A failed step does not end the run: the other steps run too, unless they
// need the product of the failed one.
//
// The package does not build bundles or packages. It receives them as functions
// ([Hooks]), so it depends neither on the container engine nor on the recipe.
package ci

import (
	"context"
	"io"
	"slices"
	"time"
)

// Lint runs the checks that run no test and need no bundle.
func Lint(ctx context.Context, out io.Writer, p Project) error {
	p, err := p.withDefaults()
	if err != nil {
		return err
	}
	return Run(ctx, out, p.LintSteps()...)
}

// Unit runs the tests that need no bundle, container or network.
func Unit(ctx context.Context, out io.Writer, p Project) error {
	p, err := p.withDefaults()
	if err != nil {
		return err
	}
	return Run(ctx, out, Step{Name: "unit tests", Limit: 10 * time.Minute, Run: p.unit})
}

// Test runs all tests with all of their cases: those on the sources, under the race
// detector, the fuzz tests, and the tests on the real artifacts.
func Test(ctx context.Context, out io.Writer, p Project, h Hooks) error {
	p, err := p.withDefaults()
	if err != nil {
		return err
	}
	p.AllCases = true
	products, suites := p.ProductSteps(h)
	return Run(ctx, out, slices.Concat(products, p.SourceSteps(), suites)...)
}

// All runs lint, all tests and the vulnerability check. The products are made before the
// first test, so that steps which wait for containers run beside all tests.
func All(ctx context.Context, out io.Writer, p Project, h Hooks) error {
	p, err := p.withDefaults()
	if err != nil {
		return err
	}
	products, suites := p.ProductSteps(h)
	source := append(p.SourceSteps(), Step{
		Name: "vulnerabilities", Limit: 15 * time.Minute, Run: uncounted(p.vulnerabilities),
	})
	return Run(ctx, out, slices.Concat(p.LintSteps(), products, source, suites)...)
}
