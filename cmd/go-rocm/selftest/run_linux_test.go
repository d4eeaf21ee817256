//go:build linux && amd64

package selftest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/userdirs"
	"forge.lthn.ai/core/go-rocm/runtime/doctor"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

// TestMain makes this binary the llama-server of a bundle, where it is started as one. The
// tests share directories for sockets and caches.
func TestMain(m *testing.M) {
	os.Exit(fakebundle.Main(func() (code int) {
		dir, err := os.MkdirTemp("", "")
		for name, sub := range map[string]string{"HOME": "home", "XDG_RUNTIME_DIR": "run", userdirs.EnvCache: "cache"} {
			path := filepath.Join(dir, sub)
			err = errors.Join(err, os.Mkdir(path, 0o700), os.Setenv(name, path))
		}
		// The parallel tests mostly wait for child processes.
		err = errors.Join(err, flag.Set("test.parallel", "6"))
		if err == nil {
			code = m.Run()
		}
		if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}))
}

// healthy is a server that answers as long as it is asked to.
func healthy() fakellama.Script {
	return fakellama.Script{NeverEnds: true, TokenDelay: time.Millisecond, PromptDelay: 2 * time.Millisecond}
}

// world is a machine with a bundle and a model.
type world struct {
	t       *testing.T
	bundle  *fakebundle.Bundle
	root    string
	options Options
}

const usedFile = "sys/class/drm/renderD128/device/mem_info_vram_used"

// newWorld returns a machine of testing/sysroot with a bundle that has HIP code. body is
// run by a shell before each start of llama-server, with $n, the number of the start.
func newWorld(t *testing.T, machine string, s fakellama.Script, body string) *world {
	t.Helper()
	fake := fakebundle.New(t, s)
	fake.AddGPUModule(t)
	root := sysroot.Write(t, machine, map[string]string{"proc/meminfo": "MemTotal: 67108864 kB\nMemAvailable: 60000000 kB\n", "proc/sys/kernel/osrelease": "6.12.48\n"})
	starts := filepath.Join(t.TempDir(), "starts")
	fake.Before(t, fmt.Sprintf("case \"$*\" in *--help*|*--version*|*--list-devices*) ;; *)\necho >>%s\nn=$(($(wc -l <%s)))\nROOT=%s\n%s\n;; esac", starts, starts, root, body))
	w := &world{t: t, bundle: fake, root: root, options: Options{
		Version: "v0", Model: fake.Model,
		Diagnose: func(context.Context) []doctor.Finding {
			return []doctor.Finding{{Check: "kernel", Status: doctor.OK, Detail: "6.12.48"}, {Check: "gpu", Status: doctor.Warning, Detail: "busy", Remedy: "wait"}}
		},
		Memory: func([]gpu.Device) (hostFree, gpuFree uint64) { return 8 << 30, 8 << 30 },
	}}
	w.options.Settings.Bundle, w.options.Settings.SysRoot = fake.Dir, root
	w.options.Settings.Restart = rocm.Restart{MinBackoff: time.Millisecond, MaxFailures: 2}
	w.reportBuffers(1)
	return w
}

// reportBuffers makes llama-server report a multiple of the sizes that the plans expect.
func (w *world) reportBuffers(factor float64) {
	w.t.Helper()
	var lines []string
	for _, b := range []plan.Backend{plan.BackendCPU, plan.BackendHIP} {
		s := w.options.Settings
		s.Backend, s.Context, s.Slots = b, testContext, 1
		p, err := rocm.Plan(w.options.Model, s)
		if err != nil {
			continue // the machine has no card
		}
		e, device := p.Host, "CPU"
		if p.GPU {
			e, device = p.Devices[0], "ROCm0"
		}
		lines = append(lines, fmt.Sprintf("load_tensors: %12s model buffer size = %8.2f MiB", device, factor*float64(e.Used())/(1<<20)))
	}
	script := healthy()
	script.Process.Log = strings.Join(lines, "\n")
	w.bundle.SetScript(w.t, script)
}

// reachLimits makes the limits short that this test reaches. The others do not: a busy machine
// may take long to do what works.
func (w *world) reachLimits() {
	w.options.slotLimit, w.options.unloadLimit = 300*time.Millisecond, 300*time.Millisecond
	w.options.Settings.Timeouts.Stall = 500 * time.Millisecond
}

// countMemory makes the card's used memory grow while a model is loaded.
func (w *world) countMemory(bytes uint64, freed bool) {
	path := filepath.Join(w.root, usedFile)
	raw, err := os.ReadFile(path)
	base, perr := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	if err := errors.Join(err, perr); err != nil {
		w.t.Fatal(err)
	}
	used := base
	set := func(n uint64) {
		used = n
		if err := os.WriteFile(path, []byte(strconv.FormatUint(n, 10)), 0o600); err != nil {
			w.t.Error(err)
		}
	}
	w.options.Settings.OnEvent = func(e supervise.Event) {
		switch {
		case e.To == supervise.Ready:
			set(used + bytes)
		case e.To.Final() && freed:
			set(base)
		}
	}
}

func (w *world) run() *Report {
	w.t.Helper()
	r, err := Run(w.t.Context(), w.options)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// find returns the result of a step.
func find(t *testing.T, r *Report, b plan.Backend, name StepName) Result {
	t.Helper()
	i := slices.IndexFunc(r.Results, func(res Result) bool { return res.Backend == b && res.Step == name })
	if i < 0 {
		t.Fatalf("no result of %s %s among %+v", b, name, r.Results)
	}
	return r.Results[i]
}

// check checks the outcome of a step, and that its text has some words.
func check(t *testing.T, r *Report, b plan.Backend, name StepName, want Outcome, words string) {
	t.Helper()
	res := find(t, r, b, name)
	if res.Outcome != want || !strings.Contains(res.Detail, words) {
		t.Errorf("%s %s: %s: %s, want %s and %q", b, name, res.Outcome, res.Detail, want, words)
	}
	if (res.Remedy == "") != (want == Passed) {
		t.Errorf("%s %s %s: the remedy is %q", b, name, res.Outcome, res.Remedy)
	}
}

// TestEveryStepPassesOnASimulatedCard runs the whole test where everything works.
func TestEveryStepPassesOnASimulatedCard(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "rx7900xtx", healthy(), `case "$*" in *ROCm0*)
mkdir -p $ROOT/proc/$$/fdinfo
printf 'drm-pdev:\t0000:03:00.0\ndrm-client-id:\t7\ndrm-memory-vram:\t300000 KiB\n' >$ROOT/proc/$$/fdinfo/9;; esac`)
	w.countMemory(310<<20, true)
	w.writeOperations("  ADD(type=f32): OK", "  MUL(type=f32): not supported [ROCm0] ")
	var shown []string
	w.options.Progress = func(step StepName, b plan.Backend, left time.Duration) {
		if left < 0 || left > MaxTime {
			t.Errorf("%s are left", left)
		}
		shown = append(shown, string(b)+" "+string(step))
	}
	r := w.run()
	if r.Verdict != AllPassed || !r.CardTested || r.Ended != "" || r.Count(Failed) > 0 {
		t.Errorf("%s, card %v, ended %q: %+v", r.Verdict, r.CardTested, r.Ended, r.Results)
	}
	for _, b := range []plan.Backend{plan.BackendCPU, plan.BackendHIP} {
		for _, name := range []StepName{StepLoad, StepMemory, StepAnswers, StepCancel, StepKill, StepUnload, StepSpeed} {
			check(t, r, b, name, Passed, "")
			if !slices.Contains(shown, string(b)+" "+string(name)) {
				t.Errorf("the progress of %s %s was not shown", b, name)
			}
		}
	}
	check(t, r, plan.BackendVulkan, StepBackend, NotPossible, "no Vulkan module")
	check(t, r, "", StepMachine, Passed, "2 checks, 1 warning")
	check(t, r, "", StepCards, Passed, "1 card")
	check(t, r, "", StepSensors, Passed, "at most 50 °C, 31 W")
	check(t, r, plan.BackendHIP, StepOperations, Passed, "1 cases equal the CPU's, 0 differ, 1 are not supported")
	m := find(t, r, plan.BackendHIP, StepMemory).Memory
	if m.Process != 300000<<10 || m.Growth != 310<<20 || m.Server == 0 || m.Planned == 0 {
		t.Errorf("memory %+v", m)
	}
	if a := find(t, r, plan.BackendHIP, StepAnswers).Answers; a.Tokens != 4*answerLength || a.Equal != a.Tokens {
		t.Errorf("answers %+v", a)
	}
	if s := find(t, r, plan.BackendHIP, StepSpeed).Speed; s.Prompt.Mean <= 0 || s.Generation.Mean <= 0 {
		t.Errorf("speed %+v", s)
	}
	for _, name := range []StepName{StepCancel, StepKill, StepUnload} {
		if find(t, r, plan.BackendHIP, name).Wait <= 0 {
			t.Errorf("%s has no time", name)
		}
	}
}

// TestWithoutACardTheTestIsIncomplete: what is not tested is said, and is no success.
func TestWithoutACardTheTestIsIncomplete(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "none", healthy(), "")
	r := w.run()
	if r.Verdict != Incomplete || r.CardTested {
		t.Errorf("%s, card %v", r.Verdict, r.CardTested)
	}
	check(t, r, "", StepCards, NotPossible, "none is tested")
	check(t, r, plan.BackendHIP, StepBackend, NotPossible, "nothing of it was tested")
	check(t, r, "", StepSensors, NotPossible, "no card reports")
	if !strings.Contains(r.Summary(), "No card was tested.") {
		t.Errorf("summary %q", r.Summary())
	}
}

// TestTheCPUAlone passes where it is asked for.
func TestTheCPUAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "none", healthy(), "")
	w.options.Settings.Backend = plan.BackendCPU
	r := w.run()
	if r.Verdict != AllPassed || r.CardTested {
		t.Errorf("%s, card %v: %+v", r.Verdict, r.CardTested, r.Results)
	}
	check(t, r, plan.BackendCPU, StepAnswers, Passed, "the same twice")
	check(t, r, plan.BackendCPU, StepUnload, Passed, "llama-server ended after")
}

// TestABackendThatWasAskedForAndIsMissing is no success either.
func TestABackendThatWasAskedForAndIsMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "none", healthy(), "")
	w.options.Settings.Backend = plan.BackendVulkan
	if r := w.run(); r.Verdict != Incomplete {
		t.Errorf("%s: %+v", r.Verdict, r.Results)
	}
}

// TestFailuresOfEachStep: every step can fail, and the others are tested all the same.
func TestFailuresOfEachStep(t *testing.T) {
	t.Parallel()
	hip := func(body string) string { return `case "$*" in *ROCm0*) ` + body + ";; esac" }
	replace := func(script string) string { return "export " + fakellama.EnvScript + "='" + script + "'" }
	for name, c := range map[string]struct {
		body    string
		prepare func(w *world)
		step    StepName
		backend plan.Backend
		outcome Outcome
		words   string
		follows Outcome // of the step speed, which has a server of its own
	}{
		"load":                  {hip("echo 'error: no such GPU' >&2; exit 1"), nil, StepLoad, plan.BackendHIP, Failed, "load ", Failed},
		"a step after load":     {hip("exit 1"), nil, StepCancel, plan.BackendHIP, NotPossible, "the model is not loaded", Failed},
		"the estimate":          {"", func(w *world) { w.reportBuffers(3) }, StepMemory, plan.BackendHIP, Failed, "the estimate is wrong", Passed},
		"more than the margin":  {"", func(w *world) { w.countMemory(6<<30, true) }, StepMemory, plan.BackendHIP, Failed, "more is used than the estimate and its margin", Passed},
		"weights elsewhere":     {"", func(w *world) { w.countMemory(1<<20, true) }, StepMemory, plan.BackendHIP, Failed, "are not on the card", Passed},
		"nobody reports memory": {replace(`{"never_ends":true,"token_delay":1000000,"prompt_delay":2000000}`), nil, StepMemory, plan.BackendCPU, NotPossible, "neither llama-server nor the kernel", Passed},
		"answers":               {hip(replace(`{"reply":"something else","never_ends":true,"token_delay":1000000,"prompt_delay":2000000}`)), nil, StepAnswers, plan.BackendHIP, Failed, "differs from the CPU's", Passed},
		"no answer":             {hip(replace(`{"faults":[{"kind":"status","status":500,"message":"broken"}]}`)), nil, StepAnswers, plan.BackendHIP, Failed, "broken", Failed},
		"the CPU's answers":     {replace(`{"faults":[{"kind":"status","status":500,"message":"broken"}]}`), nil, StepAnswers, plan.BackendCPU, Failed, "the CPU does not answer", Failed},
		"a slot stays in use": {
			hip(`case "$*" in *verbosity*) ` + replace(`{"never_ends":true,"token_delay":1000000,"keeps_abandoned":true,"faults":[{"kind":"stall","request":5,"after_tokens":4}]}`) + ";; esac"),
			(*world).reachLimits, StepCancel, plan.BackendHIP, Failed, "still in use after 300ms", Passed,
		},
		"slots do not answer": {
			hip(`case "$*" in *verbosity*) ` + replace(`{"never_ends":true,"token_delay":1000000,"keeps_abandoned":true,"faults":[{"kind":"wedge","request":5,"after_tokens":4}]}`) + ";; esac"),
			(*world).reachLimits, StepCancel, plan.BackendHIP, Failed, "still in use after 300ms: ", Passed,
		},
		"not started again":           {hip(`case "$*" in *verbosity*) mkdir $ROOT/once || exit 1;; esac`), nil, StepKill, plan.BackendHIP, Failed, "was not started again", Passed},
		"another answer after a kill": {hip(`case "$*" in *verbosity*) mkdir $ROOT/once || ` + replace(`{"reply":"x","never_ends":true}`) + ";; esac"), nil, StepKill, plan.BackendHIP, Failed, "the new one answers something else", Passed},
		"memory is not freed":         {"", func(w *world) { w.reachLimits(); w.countMemory(400<<20, false) }, StepUnload, plan.BackendHIP, Failed, "MiB of the card's memory are still in use 300ms after", Passed},
		"no memory to measure":        {"", func(w *world) { w.options.Memory = func([]gpu.Device) (uint64, uint64) { return 1, 1 } }, StepSpeed, plan.BackendHIP, NotPossible, "memory became short", NotPossible},
		"operations differ": {"", func(w *world) {
			w.writeOperations("  ADD(a): OK", "[MUL] ERR = 0.1 > 0.01   MUL(b): \x1b[1;31mFAIL\x1b[0m", "exit 1")
		}, StepOperations, plan.BackendHIP, Failed, "1 cases equal the CPU's, 1 differ", Passed},
		"operations crash": {"", func(w *world) { w.writeOperations("  ADD(a): OK", "exit 9") }, StepOperations, plan.BackendHIP, Failed, "ended with an error", Passed},
		"no operations":    {"", nil, StepOperations, plan.BackendHIP, NotPossible, "test-backend-ops is not installed", Passed},
		"the machine": {"", func(w *world) {
			w.options.Diagnose = func(context.Context) []doctor.Finding {
				return []doctor.Finding{{Check: "cache", Status: doctor.Failure, Detail: "no disk", Remedy: "buy one"}}
			}
		}, StepMachine, "", Failed, "cache: no disk", Passed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "rx7900xtx", healthy(), c.body)
			if c.prepare != nil {
				c.prepare(w)
			}
			r := w.run()
			check(t, r, c.backend, c.step, c.outcome, c.words)
			check(t, r, plan.BackendHIP, StepSpeed, c.follows, "")
			if failed := r.Count(Failed) > 0; failed != (r.Verdict == SomeFailed) {
				t.Errorf("%s with %d failures", r.Verdict, r.Count(Failed))
			}
		})
	}
}

// writeOperations writes a test-backend-ops that prints lines into the bundle. A line
// "exit N" is its exit status.
func (w *world) writeOperations(lines ...string) {
	w.t.Helper()
	var script strings.Builder
	script.WriteString("#!/bin/sh\ncase \"$*\" in 'test -b ROCm0') ;; *) echo \"arguments: $*\" >&2; exit 3;; esac\n")
	for _, line := range lines {
		if strings.HasPrefix(line, "exit ") || strings.HasPrefix(line, "sleep ") {
			script.WriteString(line + "\n")
			continue
		}
		fmt.Fprintf(&script, "echo '%s'\n", line)
	}
	syscall.ForkLock.RLock() // no other test's process inherits the open file (ETXTBSY)
	err := os.WriteFile(filepath.Join(w.bundle.Dir, OperationsName), []byte(script.String()), 0o700)
	syscall.ForkLock.RUnlock()
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestTheLimitEndsTheTest: the report has what was tested until then, and the server ends.
func TestTheLimitEndsTheTest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "rx7900xtx", healthy(), "")
	w.writeOperations("  ADD(a): OK", "sleep 600")
	w.options.operationsLimit = time.Second
	w.options.Settings.Backend = plan.BackendHIP
	r := w.run()
	check(t, r, plan.BackendHIP, StepOperations, Passed, "in the time that was left; there are more cases")
	if o := find(t, r, plan.BackendHIP, StepOperations).Operations; o.Complete || o.Equal != 1 {
		t.Errorf("operations %+v", o)
	}
	w.options.Limit = time.Nanosecond
	r = w.run()
	if r.Verdict != Incomplete || r.Ended == "" {
		t.Errorf("%s, ended %q", r.Verdict, r.Ended)
	}
	check(t, r, plan.BackendHIP, StepAnswers, NotPossible, "the time of the test is over")
}

// TestACancelledTestReports: Ctrl-C in the middle of a step.
func TestACancelledTestReports(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "rx7900xtx", healthy(), "")
	cause := errors.New("terminated by signal: interrupt")
	ctx, cancel := context.WithCancelCause(t.Context())
	w.options.Progress = func(step StepName, b plan.Backend, _ time.Duration) {
		if b == plan.BackendHIP && step == StepAnswers {
			cancel(cause)
		}
	}
	r, err := Run(ctx, w.options)
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != Incomplete || r.Ended != cause.Error() {
		t.Errorf("%s, ended %q: %+v", r.Verdict, r.Ended, r.Results)
	}
	check(t, r, plan.BackendHIP, StepLoad, Passed, "")
	check(t, r, plan.BackendHIP, StepKill, NotPossible, cause.Error())
}

// TestAModelThatCannotBeRead is an error, not a report.
func TestAModelThatCannotBeRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "none", healthy(), "")
	w.options.Model = filepath.Join(t.TempDir(), "none.gguf")
	if r, err := Run(t.Context(), w.options); !errors.Is(err, ErrModel) || r != nil {
		t.Errorf("%+v, %v", r, err)
	}
}
