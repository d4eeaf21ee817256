package ci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
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

// Steps of different lanes run side by side, the output of each is whole, and the table
// has the order of the steps.
func TestLanesRunSideBySide(t *testing.T) {
	var out strings.Builder
	beside, finished := make(chan struct{}), make(chan struct{})
	say := func(w io.Writer, text string) {
		if _, err := io.WriteString(w, text); err != nil {
			t.Error(err)
		}
	}
	err := Run(t.Context(), &out,
		Step{Name: "first", Run: func(_ context.Context, w io.Writer) (Count, error) {
			say(w, "first begins")
			close(beside)
			<-finished // the other lane ends while this step runs
			say(w, ", first ends")
			return Count{Passed: 1}, nil
		}},
		Step{Name: "waits", Lane: "b", Run: func(_ context.Context, w io.Writer) (Count, error) {
			<-beside
			say(w, "waits begins\n")
			say(w, "waits ends\n")
			return Count{Passed: 2}, errors.New("boom")
		}},
		Step{Name: "after waits", Lane: "b", Run: func(_ context.Context, w io.Writer) (Count, error) {
			say(w, "after waits\n")
			defer close(finished)
			return Count{Passed: 4}, nil
		}},
		Step{Name: "last", Run: func(_ context.Context, w io.Writer) (Count, error) {
			say(w, "last\n")
			return Count{Passed: 8}, nil
		}})
	var failed *FailedError
	if !errors.As(err, &failed) || len(failed.Steps) != 1 || failed.Steps[0] != "waits" {
		t.Fatalf("error %v", err)
	}
	log, table, _ := strings.Cut(out.String(), "\n\n")
	for _, whole := range []string{
		"first ends\n", // the announcement of a later step may stand in the middle of its output
		"waits begins\nwaits ends\n<== waits: boom\n",
		"==> after waits (3 of 4)\nafter waits\n",
		"==> last (4 of 4)\nlast\n",
	} {
		if !strings.Contains(log+"\n", whole) {
			t.Errorf("the log lacks %q:\n%s", whole, log)
		}
	}
	var order []string
	for line := range strings.Lines(table) {
		if name, _, ok := strings.Cut(line, "  "); ok {
			order = append(order, name)
		}
	}
	if diff := cmp.Diff([]string{"first", "waits", "after waits", "last", "total"}, order); diff != "" {
		t.Errorf("order of the table (-want +got):\n%s", diff)
	}
	if !strings.HasSuffix(out.String(), "\n15 passed, 0 failed\n") {
		t.Errorf("last line of:\n%s", &out)
	}
}

// A step waits for what it needs in other lanes.
func TestStepWaitsForOtherLanes(t *testing.T) { synctest.Test(t, testStepWaitsForOtherLanes) }

func testStepWaitsForOtherLanes(t *testing.T) {
	made := false
	err := Run(t.Context(), io.Discard,
		Step{Name: "make", Run: func(context.Context, io.Writer) (Count, error) {
			time.Sleep(time.Second) // virtual time: without the wait, "use" reads made too early
			made = true
			return Count{}, nil
		}},
		Step{Name: "broken", Run: returns(Count{}, errors.New("boom"))},
		Step{Name: "use", Lane: "b", Needs: []string{"make"}, Run: func(context.Context, io.Writer) (Count, error) {
			if !made {
				t.Error("it did not wait")
			}
			return Count{}, nil
		}},
		Step{Name: "never", Lane: "c", Needs: []string{"use", "broken"}, Run: func(context.Context, io.Writer) (Count, error) {
			t.Error("it ran")
			return Count{}, nil
		}})
	if want := "2 of 4 steps failed: broken, never"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
