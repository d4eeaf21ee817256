package selftest

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
)

// answer returns an answer of tokens, each with itself and two less likely candidates.
func answer(ids ...int32) llamaapi.Completion {
	c := llamaapi.Completion{Tokens: ids}
	for _, id := range ids {
		c.Positions = append(c.Positions, llamaapi.Position{ID: id, LogProb: -0.5, Top: []llamaapi.TokenProb{{ID: id, LogProb: -0.5}, {ID: id + 100, LogProb: -0.6}, {ID: id + 200, LogProb: -2}}})
	}
	return c
}

func TestCompareAnswers(t *testing.T) {
	failure := errors.New("gone")
	shifted := answer(1, 2, 3, 4)
	shifted.Positions[2].LogProb = -0.7
	wrong := answer(1, 2, 3, 4)
	wrong.Positions[2].LogProb = -3
	within := answer(1, 9, 3, 4) // whose second token ends within a character
	within.Positions = slices.Delete(within.Positions, 1, 2)
	for name, c := range map[string]struct {
		got  map[int]llamaapi.Completion // by the tokens before
		err  error
		want Answers
		says string
	}{
		"equal":                         {map[int]llamaapi.Completion{0: answer(1, 2, 3, 4)}, nil, Answers{Tokens: 4, Equal: 4}, ""},
		"other probabilities":           {map[int]llamaapi.Completion{0: shifted}, nil, Answers{Tokens: 4, Equal: 4, Largest: 0.2}, ""},
		"wrong probabilities":           {map[int]llamaapi.Completion{0: wrong}, nil, Answers{Tokens: 3, Equal: 3, Largest: 2.5}, "token 3 is -3.000, the CPU's -0.500"},
		"a tie":                         {map[int]llamaapi.Completion{0: answer(1, 102, 9, 9), 2: answer(3, 4)}, nil, Answers{Tokens: 4, Equal: 3, Ties: 1}, ""},
		"ties to the end":               {map[int]llamaapi.Completion{0: answer(101), 1: answer(102), 2: answer(103), 3: answer(104)}, nil, Answers{Tokens: 4, Ties: 4}, ""},
		"a less likely token":           {map[int]llamaapi.Completion{0: answer(1, 202, 3, 4)}, nil, Answers{Tokens: 2, Equal: 1}, "token 2 differs"},
		"a token that is no candidate":  {map[int]llamaapi.Completion{0: answer(7)}, nil, Answers{Tokens: 1}, "token 1 differs"},
		"a longer answer":               {map[int]llamaapi.Completion{0: answer(1, 2, 3, 4, 5)}, nil, Answers{Tokens: 4, Equal: 4}, ""},
		"a shorter answer is continued": {map[int]llamaapi.Completion{0: answer(1, 2), 2: answer(3, 4)}, nil, Answers{Tokens: 4, Equal: 4}, ""},
		"not reported":                  {map[int]llamaapi.Completion{0: within}, nil, Answers{Tokens: 2, Equal: 1}, "token 2 differs"},
		"no answer":                     {map[int]llamaapi.Completion{0: answer()}, nil, Answers{}, "no answer after 0 tokens"},
		"an error":                      {nil, failure, Answers{}, "gone"},
	} {
		var a Answers
		err := a.compare(answer(1, 2, 3, 4), func(at int) (llamaapi.Completion, error) {
			got, ok := c.got[at]
			if !ok && c.err == nil {
				t.Fatalf("%s: asked after %d tokens", name, at)
			}
			return got, c.err
		})
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
		a.Largest = float64(int(a.Largest*1000+0.5)) / 1000
		if d := cmp.Diff(c.want, a); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// TestCompareTokensWithoutProbabilities: tokens that end within a character.
func TestCompareTokensWithoutProbabilities(t *testing.T) {
	want := answer(1, 2, 3)
	want.Positions = slices.Delete(want.Positions, 1, 2)
	for name, c := range map[string]struct {
		got  map[int]llamaapi.Completion
		want Answers
	}{
		"equal":     {map[int]llamaapi.Completion{0: answer(1, 2, 3)}, Answers{Tokens: 3, Equal: 3}},
		"different": {map[int]llamaapi.Completion{0: answer(1, 7, 3), 2: answer(3)}, Answers{Tokens: 3, Equal: 2, Unknown: 1}},
	} {
		var a Answers
		err := a.compare(want, func(at int) (llamaapi.Completion, error) { return c.got[at], nil })
		if d := cmp.Diff(c.want, a); d != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, d)
		}
	}
}

// TestReportedBuffers reads lines of llama-server v0.5.0.
func TestReportedBuffers(t *testing.T) {
	log := []string{
		"0.00.123.456 I load_tensors:   CPU_Mapped model buffer size =    28.69 MiB",
		"0.00.123.456 I load_tensors:   CPU_REPACK model buffer size =    28.69 MiB",
		"0.00.123.456 I load_tensors:        ROCm0 model buffer size =   108.00 MiB",
		"0.00.123.456 I llama_kv_cache:      ROCm0 KV buffer size =    45.00 MiB",
		"0.00.123.456 I sched_reserve:      ROCm0 compute buffer size =    97.00 MiB",
		"0.00.123.456 I sched_reserve:  ROCm_Host compute buffer size =     5.13 MiB",
		"0.00.123.456 I sched_reserve:        CPU compute buffer size =     2.00 MiB",
	}
	for device, want := range map[string]uint64{"ROCm0": 250 << 20, "ROCm1": 0, "CPU": 32180797} {
		if got := reportedBuffers(log, device); difference(got, want) > 1 {
			t.Errorf("%s: %d, want %d", device, got, want)
		}
	}
}

func TestCompareMemory(t *testing.T) {
	const gib = 1 << 30
	card := Memory{Planned: 8 * gib, Weights: 6 * gib, Margin: gib}
	for name, c := range map[string]struct {
		server, process, growth uint64
		want                    Outcome
	}{
		"as planned":                   {8 * gib, 8 * gib, 0, Passed},
		"with the runtime's":           {8 * gib, 8*gib + gib/2, 0, Passed},
		"more than the margin":         {8 * gib, 10 * gib, 0, Failed},
		"another sum of buffers":       {9 * gib, 8 * gib, 0, Failed},
		"fewer buffers":                {7 * gib, 8 * gib, 0, Failed},
		"the growth, without counters": {8 * gib, 0, 8 * gib, Passed},
		"too much growth":              {0, 0, 12 * gib, Failed},
		"not on the card":              {8 * gib, gib, 0, Failed},
		"nothing is reported":          {0, 0, 0, NotPossible},
		"the process, not the growth":  {8 * gib, 8 * gib, 20 * gib, Passed},
	} {
		m := card
		m.Server, m.Process, m.Growth = c.server, c.process, c.growth
		res := compareMemory(m)
		if res.Outcome != c.want || *res.Memory != m || (res.Remedy == "") != (c.want == Passed) {
			t.Errorf("%s: %+v, want %s", name, res, c.want)
		}
	}
}

func TestOperationsTable(t *testing.T) {
	var o Operations
	for _, line := range []string{
		"Testing 2 devices", "Backend 1/2: ROCm0", "  Device description: AMD Radeon RX 7900 XTX",
		"  ABS(type=f16,ne_a=[128,2,2,2],v=0): \x1b[1;32mOK\x1b[0m",
		"  ABS(type=f32,ne_a=[128,2,2,2],v=1): \x1b[1;31mFAIL\x1b[0m",
		"[MUL_MAT] ERR = 0.012 > 0.0005   MUL_MAT(type_a=q4_0,type_b=f32,m=16): \x1b[1;31mFAIL\x1b[0m",
		"  MUL_MAT(type_a=iq1_s,type_b=f32): not supported [ROCm0] ",
		"  SOFTCAP(type=f32): compare failed \x1b[1;31mFAIL\x1b[0m",
		"  11/13 tests passed", "Failing tests:", "  MUL_MAT(type_a=q4_0,type_b=f32,m=16)", "  Backend ROCm0: \x1b[1;31mFAIL\x1b[0m", "1/2 backends passed", "FAIL",
	} {
		o.add(line)
	}
	want := Operations{
		Equal: 1, Different: 3, Unsupported: 1, Table: []Operation{{"ABS", 1, 1, 0}, {"MUL_MAT", 0, 1, 1}, {"SOFTCAP", 0, 1, 0}},
		Cases: []string{"ABS(type=f32,ne_a=[128,2,2,2],v=1): FAIL", "[MUL_MAT] ERR = 0.012 > 0.0005   MUL_MAT(type_a=q4_0,type_b=f32,m=16): FAIL", "SOFTCAP(type=f32): compare failed FAIL"},
	}
	if d := cmp.Diff(want, o); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestOperationsWithoutACase(t *testing.T) {
	var o Operations
	for _, c := range []struct {
		err  error
		cut  bool
		want Outcome
	}{{nil, false, NotPossible}, {errStep, true, NotPossible}, {errors.New("no such device"), false, Failed}} {
		if res := o.result(c.err, c.cut); res.Outcome != c.want {
			t.Errorf("%v: %+v, want %s", c.err, res, c.want)
		}
	}
}

// TestFindOperations: the given program, else the one beside the bundle, unless others
// can change it.
func TestFindOperations(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("GOROCM_BUNDLE", filepath.Join(dir, "bundle"))
	write := func(name string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	find := func(given, want, says string) {
		t.Helper()
		got, err := FindOperations(given, "")
		if got != want || (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %q, %v, want %q, %q", given, got, err, want, says)
		}
	}
	write("bundle/llama-server", 0o755)
	find("", "", "is not installed")
	beside := write(OperationsName, 0o777)
	find("", "", "can be changed by other users; name it with --operations")
	find(beside, beside, "")
	write(OperationsName, 0o755)
	find("", beside, "")
	within := write("bundle/"+OperationsName, 0o755)
	find("", within, "")
	find(filepath.Join(dir, "none"), "", "no such file")
	find(write("text", 0o644), "", "is not an executable file")
	find(dir, "", "is not an executable file")
}

func TestTimeLeft(t *testing.T) {
	const s = time.Second
	for _, c := range []struct{ elapsed, done, total, limit, want time.Duration }{
		{0, 0, 100 * s, 600 * s, 100 * s},
		{20 * s, 10 * s, 100 * s, 600 * s, 180 * s}, // half as fast
		{5 * s, 10 * s, 100 * s, 600 * s, 45 * s},
		{300 * s, 10 * s, 100 * s, 300 * s, 300 * s}, // the limit comes first
		{100 * s, 100 * s, 100 * s, 500 * s, 0},
		{601 * s, 50 * s, 100 * s, -1 * s, 0},
	} {
		if got := timeLeft(c.elapsed, c.done, c.total, c.limit); got != c.want {
			t.Errorf("after %s of %s: %s, want %s", c.elapsed, c.total, got, c.want)
		}
	}
}
