package ci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrNotDone is the error of a step that could not run for a reason outside the
// project, such as an unreachable database. It does not fail the run; the reason is
// printed with the result.
var ErrNotDone = errors.New("not done")

// Step is one named check of a run.
type Step struct {
	// Name is short and unique within the run.
	Name string
	// Lane names the steps that this step does not run beside: the steps of a lane run
	// one after the other, those of different lanes side by side. A step that mostly
	// waits belongs into a lane of its own.
	Lane string
	// Needs names earlier steps whose products this step uses. It starts when they have
	// ended. If one of them fails, this step is reported as failed and does not run.
	Needs []string
	// Limit is the time limit of the step; zero means no limit.
	Limit time.Duration
	// Run runs the step and writes its log to out. It returns the count of the Go tests
	// that it ran, with an error too.
	Run func(ctx context.Context, out io.Writer) (Count, error)
}

// Count is the number of Go tests by outcome. A test with subtests counts as its
// subtests.
type Count struct {
	Passed, Failed, Skipped int
}

// Add returns the sum of both counts.
func (c Count) Add(o Count) Count {
	return Count{c.Passed + o.Passed, c.Failed + o.Failed, c.Skipped + o.Skipped}
}

// String returns a line such as "12 passed, 0 failed".
func (c Count) String() string {
	s := fmt.Sprintf("%d passed, %d failed", c.Passed, c.Failed)
	if c.Skipped > 0 {
		s += fmt.Sprintf(", %d skipped", c.Skipped)
	}
	return s
}

// FailedError is the error of a run with failed steps.
type FailedError struct {
	Steps []string // names, in the order of the run
	Total int      // steps in the run
}

// Error names the failed steps.
func (e *FailedError) Error() string {
	return fmt.Sprintf("%d of %d steps failed: %s", len(e.Steps), e.Total, strings.Join(e.Steps, ", "))
}

type result struct {
	step  Step
	count Count
	took  time.Duration
	err   error
}

func (r result) failed() bool { return r.err != nil && !errors.Is(r.err, ErrNotDone) }

// Run runs the steps, each after those of its lane and those that it needs. It then
// prints a table of results in the order of steps, the reason of each failure and the
// count of tests. The output of each step stays whole: see [console]. The error is a
// [*FailedError] if a step failed.
func Run(ctx context.Context, out io.Writer, steps ...Step) error {
	start := time.Now()
	r := &run{steps: steps, results: make([]result, len(steps)), ended: make([]chan struct{}, len(steps)), console: &console{out: out}}
	lanes := map[string][]int{}
	for i, s := range steps {
		r.ended[i] = make(chan struct{})
		lanes[s.Lane] = append(lanes[s.Lane], i)
	}
	var all sync.WaitGroup
	for _, lane := range lanes {
		all.Go(func() {
			for _, i := range lane {
				r.do(ctx, i)
			}
		})
	}
	all.Wait()
	return report(out, r.results, time.Since(start))
}

// run is a run of steps. Only the lane of a step writes its result, and others read it
// after the step's channel was closed.
type run struct {
	steps   []Step
	results []result
	ended   []chan struct{}
	console *console
}

// do waits for the steps that step i needs, and runs it. It waits for earlier steps
// alone, so that no two steps wait for each other.
func (r *run) do(ctx context.Context, i int) {
	defer close(r.ended[i])
	s := r.steps[i]
	failed := ""
	for j, earlier := range r.steps[:i] {
		if slices.Contains(s.Needs, earlier.Name) {
			<-r.ended[j]
			if r.results[j].err != nil && failed == "" {
				failed = earlier.Name
			}
		}
	}
	out := r.console.open(fmt.Sprintf("==> %s (%d of %d)", s.Name, i+1, len(r.steps)))
	defer out.close()
	r.results[i] = runStep(ctx, out, s, failed)
	if err := r.results[i].err; err != nil {
		fmt.Fprintf(out, "<== %s: %v\n", s.Name, err)
	}
}

// runStep runs a step, unless failed is the name of a step that it needs and that failed.
func runStep(ctx context.Context, out io.Writer, s Step, failed string) result {
	r := result{step: s}
	if failed != "" {
		r.err = fmt.Errorf("not run: it needs %q, which failed", failed)
		return r
	}
	if err := ctx.Err(); err != nil {
		r.err = fmt.Errorf("not run: %w", err)
		return r
	}
	limited, cancel := ctx, context.CancelFunc(func() {})
	if s.Limit > 0 {
		limited, cancel = context.WithTimeout(ctx, s.Limit)
	}
	defer cancel()
	start := time.Now()
	r.count, r.err = s.Run(limited, out)
	r.took = time.Since(start)
	switch {
	case r.err != nil && limited.Err() != nil && ctx.Err() == nil:
		r.err = fmt.Errorf("not finished within the limit of %v: %w", s.Limit, r.err)
	case r.err == nil && r.count.Failed > 0:
		r.err = fmt.Errorf("%d tests failed", r.count.Failed)
	}
	return r
}

// total is the name of the table's last line.
const total = "total"

// report prints the results of a run that took a time, which is less than the sum of its
// steps' times if some of them ran side by side.
func report(out io.Writer, results []result, took time.Duration) error {
	var sum Count
	failed := &FailedError{Total: len(results)}
	width := len(total)
	for _, r := range results {
		width = max(width, len(r.step.Name))
	}
	fmt.Fprintln(out)
	for _, r := range results {
		sum = sum.Add(r.count)
		word, tests := "ok", ""
		switch {
		case r.failed():
			word = "FAILED"
			failed.Steps = append(failed.Steps, r.step.Name)
		case r.err != nil:
			word = "not done"
		}
		if r.count != (Count{}) {
			tests = r.count.String()
		}
		line := fmt.Sprintf("%-*s  %-8s  %8s  %s", width, r.step.Name, word, r.took.Round(100*time.Millisecond), tests)
		fmt.Fprintln(out, strings.TrimRight(line, " "))
	}
	fmt.Fprintf(out, "%-*s  %-8s  %8s\n", width, total, "", took.Round(100*time.Millisecond))
	for _, r := range results {
		switch {
		case r.failed():
			fmt.Fprintf(out, "FAILED %s: %v\n", r.step.Name, r.err)
		case r.err != nil:
			fmt.Fprintf(out, "%s: %v\n", r.step.Name, r.err)
		}
	}
	fmt.Fprintln(out, sum)
	if len(failed.Steps) > 0 {
		return failed
	}
	return nil
}
