package ci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func returns(c Count, err error) func(context.Context, io.Writer) (Count, error) {
	return func(context.Context, io.Writer) (Count, error) { return c, err }
}

// lastLines removes the table, whose times differ.
func lastLines(out string) []string {
	_, after, _ := strings.Cut(out, "\n\n")
	var kept []string
	for line := range strings.Lines(after) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "FAILED ") || strings.Contains(line, ": ") || strings.Contains(line, "passed,") && !strings.Contains(line, "  ") {
			kept = append(kept, line)
		}
	}
	return kept
}

func TestRunReportsEachStep(t *testing.T) {
	boom := errors.New("boom")
	tests := map[string]struct {
		steps  []Step
		failed []string
		want   []string
	}{
		"all steps pass": {
			steps: []Step{{Name: "a", Run: returns(Count{Passed: 2}, nil)}, {Name: "b", Run: returns(Count{Passed: 1, Skipped: 1}, nil)}},
			want:  []string{"3 passed, 0 failed, 1 skipped"},
		},
		"nothing to count": {
			steps: []Step{{Name: "a", Run: returns(Count{}, nil)}},
			want:  []string{"0 passed, 0 failed"},
		},
		"a failure does not stop the run": {
			steps:  []Step{{Name: "a", Run: returns(Count{}, boom)}, {Name: "b", Run: returns(Count{Passed: 1}, nil)}},
			failed: []string{"a"},
			want:   []string{"FAILED a: boom", "1 passed, 0 failed"},
		},
		"a counted failure without an error fails": {
			steps:  []Step{{Name: "a", Run: returns(Count{Passed: 4, Failed: 2}, nil)}},
			failed: []string{"a"},
			want:   []string{"FAILED a: 2 tests failed", "4 passed, 2 failed"},
		},
		"a step that needs a failed one does not run": {
			steps: []Step{
				{Name: "a", Run: returns(Count{}, boom)},
				{Name: "b", Needs: []string{"a"}, Run: returns(Count{Passed: 9}, nil)},
				{Name: "c", Needs: []string{"b"}, Run: returns(Count{Passed: 9}, nil)},
			},
			failed: []string{"a", "b", "c"},
			want: []string{
				"FAILED a: boom",
				`FAILED b: not run: it needs "a", which failed`,
				`FAILED c: not run: it needs "b", which failed`,
				"0 passed, 0 failed",
			},
		},
		"a step that is not done is reported and fails nothing": {
			steps: []Step{{Name: "a", Run: returns(Count{}, fmt.Errorf("%w: no network", ErrNotDone))}},
			want:  []string{"a: not done: no network", "0 passed, 0 failed"},
		},
		"a limit": {
			steps: []Step{{Name: "a", Limit: time.Millisecond, Run: func(ctx context.Context, _ io.Writer) (Count, error) {
				<-ctx.Done()
				return Count{Passed: 1}, ctx.Err()
			}}},
			failed: []string{"a"},
			want:   []string{"FAILED a: not finished within the limit of 1ms: context deadline exceeded", "1 passed, 0 failed"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			err := Run(t.Context(), &out, tt.steps...)
			var failed *FailedError
			if errors.As(err, &failed) != (tt.failed != nil) {
				t.Fatalf("error %v", err)
			}
			if failed != nil {
				if diff := cmp.Diff(tt.failed, failed.Steps); diff != "" {
					t.Errorf("failed steps (-want +got):\n%s", diff)
				}
			}
			if diff := cmp.Diff(tt.want, lastLines(out.String())); diff != "" {
				t.Errorf("last lines (-want +got):\n%s\n%s", diff, &out)
			}
		})
	}
}

func TestRunStopsWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	second := false
	err := Run(ctx, io.Discard,
		Step{Name: "a", Run: func(context.Context, io.Writer) (Count, error) { cancel(); return Count{}, ctx.Err() }},
		Step{Name: "b", Run: func(context.Context, io.Writer) (Count, error) { second = true; return Count{}, nil }})
	if err == nil || second {
		t.Errorf("error %v, second step run: %v", err, second)
	}
}
