package ci

import (
	"context"
	"io"
	"time"
)

// Lint runs the checks that need neither a test nor a bundle.
func Lint(ctx context.Context, out io.Writer, p Project) error {
	p, err := p.withDefaults()
	if err != nil {
		return err
	}
	return Run(ctx, out, p.LintSteps()...)
}

// Test runs everything that proves the project by running it: unit tests
// under the race detector, fuzzing, and the tests on the real artifacts.
func Test(ctx context.Context, out io.Writer, p Project, h Hooks) error {
	p, err := p.withDefaults()
	if err != nil {
		return err
	}
	return Run(ctx, out, append(p.UnitSteps(), p.ProductSteps(h)...)...)
}

// All runs what a change has to pass: lint, tests and the vulnerability
// check, in the order in which a failure is cheapest to learn.
func All(ctx context.Context, out io.Writer, p Project, h Hooks) error {
	p, err := p.withDefaults()
	if err != nil {
		return err
	}
	steps := append(p.LintSteps(), p.UnitSteps()...)
	steps = append(steps, Step{
		Name: "vulnerabilities", Limit: 15 * time.Minute, Run: uncounted(p.vulnerabilities),
	})
	return Run(ctx, out, append(steps, p.ProductSteps(h)...)...)
}
