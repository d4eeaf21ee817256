package backendops

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestStateContinues interrupts a run, adds half a line to its file, and continues: the second run has
// the results of the first and runs the rest alone. An operation of which some cases were run is left.
func TestStateContinues(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	p := fakeProgram(t)
	cases, _, err := p.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, err := OpenState(path)
	if err != nil {
		t.Fatal(err)
	}
	killed := errors.New("killed")
	err = p.RunUnits(t.Context(), 1, Units(cases), func(r Result) error {
		if len(first.Results) == 3 {
			return killed
		}
		return first.Add(r)
	}, first.Complete)
	if !errors.Is(err, killed) || first.Complete(Unit{Operation: "SOFTCAP"}) != nil || first.Complete(Unit{Operation: "ADD_ADD", Params: "ne="}) != nil || first.Close() != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"operation":"ADD","par`); errors.Join(err, f.Close()) != nil {
		t.Fatal(err)
	}
	second, err := OpenState(path)
	if err != nil {
		t.Fatal(err)
	}
	left := second.Left(cases)
	if fused := len(left) - 1; len(second.Results) != 3 || fused != len(FusedOperations)-1 || len(left[0].Cases) != 5 {
		t.Fatalf("%d results, left are %v", len(second.Results), left)
	}
	if err := errors.Join(p.RunUnits(t.Context(), 2, left[:1], second.Add, second.Complete), second.Close()); err != nil {
		t.Fatal(err)
	}
	third, err := OpenState(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[Case]bool{}
	for _, r := range third.Results {
		if seen[r.Case] {
			t.Errorf("%s ran twice", r)
		}
		seen[r.Case] = true
	}
	if err := third.Close(); err != nil || len(seen) != 8 || len(third.Left(cases)) != len(FusedOperations)-1 {
		t.Errorf("%d cases have results, left are %v: %v", len(seen), third.Left(cases), err)
	}
}

func TestUnitsKeepOperationsTogether(t *testing.T) {
	t.Parallel()
	var cases []Case
	for _, n := range []struct {
		operation string
		cases     int
	}{{"ADD", 10}, {"MUL", 45}, {"MUL_MAT", 450}, {"SQR", 1}} {
		for range n.cases {
			cases = append(cases, Case{Operation: n.operation})
		}
	}
	var got []int
	for _, u := range Units(cases) {
		got = append(got, len(u.Cases))
	}
	if want := []int{55, 200, 200, 50, 1}; !slices.Equal(got, want) {
		t.Errorf("units of %v cases, want %v", got, want)
	}
}
