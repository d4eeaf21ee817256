package backendops

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// envFake makes the test's own program act as test-backend-ops.
const envFake = "GOROCM_FAKE_BACKEND_OPS"

func TestMain(m *testing.M) {
	if os.Getenv(envFake) != "" {
		os.Exit(fake(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// fakeCases are the cases of the fake in its order. The parameters say what happens.
var fakeCases = []string{
	"ADD(type=f32,n=1)", "ADD(type=f32,n=2,crash=1)", "ADD(type=f16,n=3)", "MUL(type=f32,nan=1)", "MUL(type=q4_0,unsupported=1)",
	"MUL(type=f16,unallocated=1)", "MUL(type=f16,n=1)", "SQR(type=f32,hang=1)", "SQR(type=f32,n=1)", "SQR(type=f32,n=1)", "FUSED(n=1)", "FUSED(n=2)",
}

// fake prints as test-backend-ops does: the status of a case follows its name, and is lost with the
// process if that crashes in the next case.
func fake(args []string) int {
	mode, filter, lost, code := args[0], "", "", 0
	for i, a := range args {
		if a == "-o" {
			filter = args[i+1]
		}
	}
	if !slices.Equal(args[len(args)-2:], []string{"-b", "Vulkan0"}) {
		return 2
	}
	fmt.Print("Testing 2 devices\n\nBackend 1/2: Vulkan0\n  Device description: llvmpipe (LLVM 19.1.7, 256 bits)\n\n")
	for _, name := range fakeCases {
		operation, _, _ := strings.Cut(name, "(")
		if mode == "support" {
			status := "\x1b[1;32mSUPPORTED\x1b[0m"
			if strings.Contains(name, "unsupported") {
				status = "\x1b[1;31mNOT SUPPORTED\x1b[0m"
			}
			if operation != "FUSED" {
				fmt.Printf("  %s: %s\n", name, status)
			}
			continue
		}
		if filter != operation && !strings.Contains(","+filter+",", ","+name+",") {
			continue
		}
		if strings.Contains(name, "crash") {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		if strings.Contains(name, "crash") || strings.Contains(name, "hang") {
			time.Sleep(time.Hour)
		}
		fmt.Print(lost)
		switch {
		case strings.Contains(name, "unallocated"):
			lost = "failed to allocate tensors [Vulkan0] "
		case strings.Contains(name, "unsupported"):
			lost = fmt.Sprintf("  %s: not supported [Vulkan0] \n", name)
		case strings.Contains(name, "nan"):
			fmt.Printf("[MUL] NaN at index 3 (Vulkan0=nan CPU=0.5)   %s: ", name)
			lost, code = "\x1b[1;31mFAIL\x1b[0m\n", 1
		default:
			fmt.Printf("  %s: ", name)
			lost = "\x1b[1;32mOK\x1b[0m\n"
		}
	}
	fmt.Print(lost)
	fmt.Print("  5/6 tests passed\n\nFailing tests:\n  MUL(type=f32,nan=1)\n  Backend Vulkan0: \x1b[1;31mFAIL\x1b[0m\n")
	return code
}

func fakeProgram(t *testing.T) Program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Program{Argv: []string{self}, Dir: t.TempDir(), Env: []string{envFake + "=1"}, Device: "Vulkan0", CaseLimit: 3 * time.Second}
}

func TestListReportsWhatTheDeviceSupports(t *testing.T) {
	t.Parallel()
	supported, unsupported, err := fakeProgram(t).List(t.Context())
	if err != nil || len(supported) != 8 || len(unsupported) != 1 || supported[0] != (Case{"ADD", "type=f32,n=1"}) || unsupported[0].Operation != "MUL" {
		t.Errorf("supported %v, unsupported %v: %v", supported, unsupported, err)
	}
}

// TestRunContinuesAfterACrash runs cases of which one crashes, one hangs, one differs and one cannot be
// allocated. The others have their own results.
func TestRunContinuesAfterACrash(t *testing.T) {
	t.Parallel()
	p := fakeProgram(t)
	supported, unsupported, err := p.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Result{}
	err = p.Run(t.Context(), append(supported, unsupported...), func(r Result) error {
		if old, ok := got[r.String()]; ok {
			t.Errorf("two results: %v and %v", old, r)
		}
		got[r.String()] = r
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	outcomes := map[string]Outcome{}
	for name, r := range got {
		outcomes[name] = r.Outcome
	}
	want := map[string]Outcome{
		"ADD(type=f32,n=1)": Equal, "ADD(type=f32,n=2,crash=1)": Crashed, "ADD(type=f16,n=3)": Equal, "MUL(type=f32,nan=1)": Different,
		"MUL(type=q4_0,unsupported=1)": Unsupported, "MUL(type=f16,unallocated=1)": Different, "MUL(type=f16,n=1)": Equal,
		"SQR(type=f32,hang=1)": Crashed, "SQR(type=f32,n=1)": Equal,
	}
	if d := cmp.Diff(want, outcomes); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for name, reason := range map[string]string{
		"MUL(type=f32,nan=1)": "NaN at index 3", "MUL(type=f16,unallocated=1)": "not allocated", "SQR(type=f32,hang=1)": "no result after 3s",
		"ADD(type=f32,n=2,crash=1)": "signal: killed", "MUL(type=q4_0,unsupported=1)": "by Vulkan0",
	} {
		if !strings.Contains(got[name].Reason, reason) {
			t.Errorf("the reason of %s is %q", name, got[name].Reason)
		}
	}
}

// TestSlowDeviceHasNoHang runs a case that has no result in its time, on a device that is known to be slow.
func TestSlowDeviceHasNoHang(t *testing.T) {
	t.Parallel()
	p := fakeProgram(t)
	p.Slow = true
	var got []Result
	cases := []Case{{"ADD", "type=f32,n=2,crash=1"}, {"SQR", "type=f32,hang=1"}, {"SQR", "type=f32,n=1"}}
	if err := p.Run(t.Context(), cases, func(r Result) error { got = append(got, r); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0].Outcome != Crashed || got[1].Outcome != TooSlow || got[2].Outcome != Equal {
		t.Errorf("the results are %v", got)
	}
	var b strings.Builder
	if err := WriteTable(&b, Merge(got)); err != nil || !strings.Contains(b.String(), "| SQR | f32 | 1 | 0 | 1 | 0 |  |") || !strings.Contains(b.String(), "| too slow | it had no result after 3s |") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

// TestVarietyBeginsWithSmallCases returns the smallest case of each kind first.
func TestVarietyBeginsWithSmallCases(t *testing.T) {
	t.Parallel()
	cases := []Case{{"ADD", "type=f32,ne=[30,1]"}, {"ADD", "type=f32,ne=[2,10]"}, {"ADD", "type=f16,ne=[40,1]"}, {"MUL", "type=f32,n=5"}, {"MUL", "type=f32,n=4"}}
	first, rest := Variety(cases)
	if !slices.Equal(first, []Case{cases[4], cases[1], cases[2]}) || !slices.Equal(rest, []Case{cases[3], cases[0]}) {
		t.Errorf("first %v, then %v", first, rest)
	}
}

// TestVarietyHasOneAndManyVectors has a product by one vector, by some and by many.
func TestVarietyHasOneAndManyVectors(t *testing.T) {
	t.Parallel()
	var cases []Case
	for _, n := range []int{16, 9, 8, 2, 1} {
		cases = append(cases, Case{"MUL_MAT", fmt.Sprintf("type_a=q4_0,type_b=f32,m=16,n=%d,k=256", n)})
	}
	cases = append(cases, Case{"FLASH_ATTN_EXT", "hsk=64,nb=35,type_K=f16"}, Case{"FLASH_ATTN_EXT", "hsk=64,nb=1,type_K=f16"}, Case{"GET_ROWS", "type=f32,n=256"}, Case{"GET_ROWS", "type=f32,n=1"})
	first, rest := Variety(cases)
	if want := []Case{cases[8], cases[6], cases[5], cases[4], cases[3], cases[1]}; !slices.Equal(first, want) || !slices.Equal(rest, []Case{cases[7], cases[2], cases[0]}) {
		t.Errorf("first %v, then %v", first, rest)
	}
}

// TestSmallestHasOneOfEachOperation leaves out an operation whose smallest case has too much work.
func TestSmallestHasOneOfEachOperation(t *testing.T) {
	t.Parallel()
	cases := []Case{{"CPY", "type=q8_0,n=4"}, {"CPY", "type=f32,n=2"}, {"CPY", "type=f16,n=2"}, {"ROPE", "type=f32,n=100"}, {"MUL", "type=f32,n=1000"}}
	if got := Smallest(cases, 100); !slices.Equal(got, []Case{cases[1], cases[3]}) {
		t.Errorf("the smallest are %v", got)
	}
}

// TestSamplesHaveEachKind splits cases into two parts: both have each operation, and together they have each kind, once.
func TestSamplesHaveEachKind(t *testing.T) {
	t.Parallel()
	cases := []Case{{"CPY", "type=q8_0,n=4"}, {"CPY", "type=f32,n=2"}, {"CPY", "type=f32,n=3"}, {"CPY", "type=f16,n=3"}, {"CPY", "type=q4_0,n=5"}, {"ADD", "type=f32,n=1"}, {"MUL", "type=f32,n=1000"}}
	even, odd := Sample(cases, 0, 2, 100), Sample(cases, 1, 2, 100)
	if !slices.Equal(even, []Case{cases[1], cases[3], cases[4], cases[5]}) || !slices.Equal(odd, []Case{cases[0], cases[1], cases[5]}) {
		t.Errorf("the parts are %v and %v", even, odd)
	}
	if all := Sample(cases, 0, 1, 1000); len(all) != 6 {
		t.Errorf("the whole is %v", all)
	}
}

func TestWorkIsTheProductOfTheSizes(t *testing.T) {
	t.Parallel()
	for params, want := range map[string]float64{
		"type_a=q4_0,type_b=f32,m=16,n=8,k=256,bs=[3,2],nr=[1,1],per=[0,1,2,3],k_v=0,o=1": 16 * 8 * 256 * 6 * 6,
		"hsk=64,hsv=64,nh=4,nr23=[1,1],kv=512,nb=3,mask=1,max_bias=0.000000":              64 * 4 * 512 * 3,
		"type=f32,eps=0.000001,ne=[64,5,4,3]":                                             64 * 5 * 4 * 3,
		"":                                                                                1,
	} {
		if got := Work(Case{"ANY", params}); got != want {
			t.Errorf("%q is %v, and not %v", params, got, want)
		}
	}
}

func TestRunOperationNeedsACase(t *testing.T) {
	t.Parallel()
	var got []string
	report := func(r Result) error { got = append(got, r.String()+" "+string(r.Outcome)); return nil }
	if err := fakeProgram(t).RunOperation(t.Context(), "FUSED", "n=", report); err != nil || !slices.Equal(got, []string{"FUSED(n=1) equal", "FUSED(n=2) equal"}) {
		t.Errorf("got %q, %v", got, err)
	}
	if err := fakeProgram(t).RunOperation(t.Context(), "NOTHING", "", report); err == nil {
		t.Error("an operation without cases is no error")
	}
}

func TestWriteTableNamesEachDifference(t *testing.T) {
	t.Parallel()
	results := Merge([]Result{
		{Case{"ADD", "type=f32,n=1"}, Equal, ""},
		{Case{"ADD", "type=f16,n=1"}, Unsupported, "by Vulkan0"},
		{Case{"ADD", "type=f32,n=2"}, Unsupported, "by CPU"},
		{Case{"MUL", "type=f32,n=1"}, Equal, ""},
		{Case{"MUL", "type=f32,n=1"}, Different, "ERR = 0.1 > 0.0 | NaN"},
		{Case{"MUL", "type=f32,n=2"}, Crashed, "signal: aborted"},
		{Case{"MUL", "type=f16,n=2"}, NotRun, ""},
		{Case{"MUL", "type=f16,n=1"}, Unsupported, "by CPU"},
		{Case{"ADD", "type=f32,n=1"}, NotRun, ""}, // it was run, too
		{Case{"FUSED", "type=f32"}, Equal, ""},
		{Case{Operation: "FUSED"}, NotRun, ""},
	})
	var b strings.Builder
	if err := WriteTable(&b, results); err != nil {
		t.Fatal(err)
	}
	want := `| operation | types that were run | equal | different | not run | unsupported | types that are never supported |
|---|---|---|---|---|---|---|
| ADD | f32 | 1 | 0 | 0 | 2 | f16 |
| FUSED | f32 | 1 | 0 | some | 0 |  |
| MUL | f32 | 0 | 2 | 1 | 1 |  |

| case | outcome | reason |
|---|---|---|
| ` + "`MUL(type=f32,n=1)`" + ` | different | ERR = 0.1 > 0.0 \| NaN |
| ` + "`MUL(type=f32,n=2)`" + ` | crashed | signal: aborted |
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if Count(results, Equal) != 2 || Count(results, Unsupported) != 3 || Count(results, NotRun) != 2 {
		t.Errorf("counts of %v", results)
	}
}
