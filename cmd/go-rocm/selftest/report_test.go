package selftest

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/runtime/doctor"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/speed"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// exampleReport has every field.
func exampleReport() *Report {
	r := &Report{
		Format: formatVersion, Version: "v0.1.0", Started: time.Date(2026, 11, 29, 20, 15, 0, 0, time.UTC), Backend: plan.BackendAuto, CardTested: true,
		Ended: "terminated by signal: interrupt", Kernel: "6.12.48",
		Model:  Model{"hf:Qwen/Qwen3-0.6B-GGUF", "qwen3", "Q8_0", 639446688},
		Bundle: Bundle{"llama-hip", "v0.5.0", "sha256:0123"},
		Cards: []Card{
			{Name: "RX 7900 XTX", PCI: "0000:03:00.0", Target: "gfx1100", IDs: "1002:744c:c8", Bytes: 24 << 30, Vulkan: "AMD Radeon RX 7900 XTX (RADV NAVI31)"},
			{Name: "llvmpipe", Bytes: 16 << 30, Integrated: true, Software: true, Vulkan: "llvmpipe", Unusable: "the kernel lists no such GPU"},
		},
		Checks: []doctor.Finding{{Check: "kernel", Status: doctor.OK, Detail: "6.12.48"}, {Check: "render", Status: doctor.Warning, Detail: "a | b", Remedy: "add the user to the group render"}},
	}
	add := func(step StepName, b plan.Backend, res Result) {
		res.Step, res.Backend, res.Seconds = step, b, 1.25
		r.Results = append(r.Results, res)
	}
	memory := passed("planned 700 MiB")
	memory.Memory = &Memory{Place: "RX 7900 XTX", Planned: 700 << 20, Weights: 600 << 20, Margin: 1 << 30, Server: 690 << 20, Process: 900 << 20, Growth: 910 << 20}
	add(StepMemory, plan.BackendHIP, memory)
	answers := failed("choose another backend", "a prompt of 33 tokens: token 2 differs")
	answers.Answers = &Answers{Tokens: 34, Equal: 32, Ties: 1, Largest: 0.0625}
	add(StepAnswers, plan.BackendHIP, answers)
	kill := passed("killed\nand started")
	kill.Wait = 2.5
	add(StepKill, plan.BackendHIP, kill)
	measured := passed("fast")
	measured.Speed = &speed.Depth{Prompt: speed.Sample{Mean: 5000.5, Deviation: 10, Count: 2}, Generation: speed.Sample{Mean: 200.25, Deviation: 1.5, Count: 2}}
	add(StepSpeed, plan.BackendHIP, measured)
	operations := failed("do not use it", "1 differs")
	operations.Operations = &Operations{
		Device: "ROCm0", Equal: 7, Different: 1, Unsupported: 2, Complete: true, Table: []Operation{{"ADD", 7, 0, 2}, {"MUL_MAT", 0, 1, 0}},
		Cases: []string{"[MUL_MAT] ERR = 0.1 > 0.0005   MUL_MAT(type_a=q4_0): FAIL"},
	}
	add(StepOperations, plan.BackendHIP, operations)
	add(StepBackend, plan.BackendVulkan, notPossible("install mesa-vulkan-drivers", "no Vulkan driver <is> installed"))
	sensors := passed("RX 7900 XTX: at most 71 °C, 290 W")
	sensors.Sensors = []CardSensors{{Name: "RX 7900 XTX", PCI: "0000:03:00.0", Samples: 240, EdgeCelsius: 60, JunctionCelsius: 71, MemoryCelsius: 80, PowerWatts: 290, PowerCapWatts: 339, ShaderMHz: 2500, Throttled: []string{"power"}}}
	add(StepSensors, "", sensors)
	r.finish(r.Started.Add(301500 * time.Millisecond))
	return r
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

func TestReportFiles(t *testing.T) {
	r := exampleReport()
	var markdown bytes.Buffer
	if err := r.Markdown(&markdown); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.md", markdown.Bytes())
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", append(raw, '\n'))
}

func TestVerdict(t *testing.T) {
	answered := func(b plan.Backend) Result { return Result{Step: StepAnswers, Backend: b, Outcome: Passed} }
	for name, c := range map[string]struct {
		r    Report
		want Verdict
	}{
		"a card":                      {Report{Backend: plan.BackendAuto, CardTested: true, Results: []Result{answered(plan.BackendHIP)}}, AllPassed},
		"no card":                     {Report{Backend: plan.BackendAuto, Results: []Result{answered(plan.BackendCPU)}}, Incomplete},
		"hip on no card":              {Report{Backend: plan.BackendHIP}, Incomplete},
		"the CPU":                     {Report{Backend: plan.BackendCPU, Results: []Result{answered(plan.BackendCPU)}}, AllPassed},
		"Vulkan without an answer":    {Report{Backend: plan.BackendVulkan, Results: []Result{answered(plan.BackendCPU)}}, Incomplete},
		"Vulkan by a software driver": {Report{Backend: plan.BackendVulkan, Results: []Result{answered(plan.BackendVulkan)}}, AllPassed},
		"ended early":                 {Report{Backend: plan.BackendAuto, CardTested: true, Ended: "x", Results: []Result{answered(plan.BackendHIP)}}, Incomplete},
		"a failure":                   {Report{Backend: plan.BackendAuto, Ended: "x", Results: []Result{{Outcome: Failed}}}, SomeFailed},
	} {
		c.r.finish(time.Now())
		if c.r.Verdict != c.want {
			t.Errorf("%s: %s, want %s", name, c.r.Verdict, c.want)
		}
	}
}
