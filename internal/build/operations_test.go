package build

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/internal/backendops"
)

// TestSelectOperationsChoosesCases chooses cases by operation and parameters, among the listed cases and the
// fused operations.
func TestSelectOperationsChoosesCases(t *testing.T) {
	t.Parallel()
	cases := []backendops.Case{{Operation: "ADD", Params: "n=1"}, {Operation: "MUL_MAT", Params: "n=1"}, {Operation: "ADD", Params: "n=2"}}
	all := []backendops.Unit{{Cases: cases}, {Operation: "SOFTCAP"}, {Operation: "TOPK_MOE"}}
	for _, test := range []struct {
		list, params string
		want         []backendops.Unit
	}{
		{"", "", all},
		{"ADD, TOPK_MOE", "", []backendops.Unit{{Cases: []backendops.Case{cases[0], cases[2]}}, {Operation: "TOPK_MOE"}}},
		{"SOFTCAP", "", []backendops.Unit{{Operation: "SOFTCAP"}}},
		{"ADD,SOFTCAP", "n=[2-9]", []backendops.Unit{{Cases: []backendops.Case{cases[2]}}, {Operation: "SOFTCAP", Params: "n=[2-9]"}}},
	} {
		sel, err := selectOperations(test.list, test.params, cases)
		if err != nil {
			t.Fatal(err)
		}
		if got := sel.units(all); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%q %q selects %v, want %v", test.list, test.params, got, test.want)
		}
	}
	for _, test := range []struct{ list, params, want string }{
		{"ADD,MULMAT", "", `no operation "MULMAT"; it has ADD,`},
		{"", "n=1", "name the operations"},
		{"ADD", "n=(", "missing closing )"},
		{"ADD,MUL_MAT", "n=2", "no case of MUL_MAT has parameters"},
	} {
		if _, err := selectOperations(test.list, test.params, cases); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q %q: %v, want %q", test.list, test.params, err, test.want)
		}
	}
}

// TestUnitsAreInTheOrderOfTheProgram begins with the smallest case of each kind, and has the cases of each process in the
// order in which the program runs them. Cases that are too large are not run.
func TestUnitsAreInTheOrderOfTheProgram(t *testing.T) {
	t.Parallel()
	cases := []backendops.Case{
		{Operation: "MUL_MAT", Params: "type=f32,n=30"},
		{Operation: "MUL_MAT", Params: "type=f32,n=2000"},
		{Operation: "ADD", Params: "type=f32,n=5"},
		{Operation: "ADD", Params: "type=f32,n=3"},
		{Operation: "MUL_MAT", Params: "type=f32,n=20"},
	}
	state, err := backendops.OpenState(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := state.Close(); err != nil {
			t.Error(err)
		}
	}()
	run := operationsRun{most: 1000}
	run.Slow = true
	units := slices.DeleteFunc(run.order(state, cases), func(u backendops.Unit) bool { return u.Operation != "" })
	listed(units, cases)
	want := []backendops.Unit{{Cases: []backendops.Case{cases[3], cases[4]}}, {Cases: []backendops.Case{cases[0], cases[2]}}}
	if !reflect.DeepEqual(units, want) {
		t.Errorf("the units are %v", units)
	}
}

// TestOperationsPageSaysWhatWasNotRun writes a row for each operation that was run, with the number of cases
// that were not, and names the operations of which no case was run.
func TestOperationsPageSaysWhatWasNotRun(t *testing.T) {
	t.Parallel()
	of := func(operation, params string) backendops.Case {
		return backendops.Case{Operation: operation, Params: params}
	}
	report := operationsReport{
		device: "Vulkan0",
		results: []backendops.Result{
			{Case: of("ADD", "type=f32"), Outcome: backendops.Equal},
			{Case: of("MUL_MAT", "type=f32"), Outcome: backendops.Different, Reason: "ERR = 2"},
			{Case: of("SOFTCAP", "type=f32"), Outcome: backendops.Equal},
		},
		unsupported: []backendops.Case{of("ADD", "type=f64"), of("ROPE", "type=f64"), of("HARDLY", "type=f64")},
		left: []backendops.Unit{
			{Cases: []backendops.Case{of("MUL_MAT", "type=f16"), of("MUL_MAT", "type=q4_0"), of("ROPE", "type=f32")}},
			{Operation: "SOFTCAP"},
			{Operation: "TOPK_MOE"},
		},
	}
	var b strings.Builder
	different, err := vulkanOperations("v0.5.0", "25.0.7-2", report).write(&b)
	if err != nil || different != 1 {
		t.Fatalf("%d cases differ: %v", different, err)
	}
	text := b.String()
	for _, part := range []string{
		"(v0.5.0)", "lavapipe 25.0.7-2", "2 cases are equal; 1 differ or crash. 2 are not supported", "were not run: ROPE, TOPK_MOE.",
		"| ADD | f32 | 1 | 0 | 0 | 1 | f64 |", "| MUL_MAT | f32 | 0 | 1 | 2 | 0 |  |", "| SOFTCAP | f32 | 1 | 0 | some | 0 |  |", "| HARDLY |  | 0 | 0 | 0 | 1 | f64 |", "ERR = 2",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("the page lacks %q:\n%s", part, text)
		}
	}
	if strings.Contains(text, "| ROPE") || len(report.results) != 3 {
		t.Errorf("the page has a row of an operation that was not run, or writing changed the results:\n%s", text)
	}
}
