//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/cmd/go-rocm/selftest"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// selfTest runs the command with a model, and returns its report.
func selfTest(t *testing.T, model string, args ...string) selftest.Report {
	t.Helper()
	dir := t.TempDir()
	name, markdown := filepath.Join(dir, "report.json"), filepath.Join(dir, "report.md")
	args = append([]string{"selftest", model, "--json", name, "--report", markdown}, args...)
	out, said, err := command(t, args...)
	t.Logf("%s%s", out, said)
	if err != nil {
		t.Errorf("selftest: %v", err)
	}
	var r selftest.Report
	raw, err := os.ReadFile(name)
	if err := errors.Join(err, json.Unmarshal(raw, &r)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(markdown)
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{home + "/", dir, os.Getenv(envWork)} {
		if strings.Contains(string(raw)+string(text), secret) {
			t.Errorf("%s is in the report", secret)
		}
	}
	if r.Verdict != selftest.AllPassed || r.CardTested || len(r.Checks) == 0 {
		t.Errorf("%s, card tested: %v, %d checks", r.Verdict, r.CardTested, len(r.Checks))
	}
	return r
}

// checkSteps checks that the steps of a backend passed.
func checkSteps(t *testing.T, r selftest.Report, b plan.Backend, names ...selftest.StepName) {
	t.Helper()
	for _, name := range names {
		i := slices.IndexFunc(r.Results, func(res selftest.Result) bool { return res.Backend == b && res.Step == name })
		if i < 0 || r.Results[i].Outcome != selftest.Passed {
			t.Errorf("%s %s did not pass", b, name)
		}
	}
}

// TestSelfTestOfTheCPU tests the bundle as it ships: llama-server is killed, and started
// again.
func TestSelfTestOfTheCPU(t *testing.T) {
	r := selfTest(t, realModel(t, models.SmolLM2()), "--backend", "cpu")
	checkSteps(t, r, plan.BackendCPU, selftest.StepLoad, selftest.StepMemory, selftest.StepAnswers, selftest.StepCancel, selftest.StepKill, selftest.StepUnload, selftest.StepSpeed)
}

// TestSelfTestOfVulkan compares the Vulkan module on Mesa's lavapipe with the CPU. The model is random:
// a trained one takes longer on lavapipe than the test may.
func TestSelfTestOfVulkan(t *testing.T) {
	onLavapipe(t, true)
	model, err := models.Tiny(t.TempDir(), "llama-spm", ggufgen.TinyOptions{Seed: 1, Width: 256, Feed: 256, Type: gguf.Q4_K})
	if err != nil {
		t.Fatal(err)
	}
	r := selfTest(t, model, "--backend", "vulkan")
	checkSteps(t, r, plan.BackendCPU, selftest.StepLoad, selftest.StepAnswers, selftest.StepUnload)
	checkSteps(t, r, plan.BackendVulkan, selftest.StepLoad, selftest.StepMemory, selftest.StepAnswers, selftest.StepCancel, selftest.StepKill, selftest.StepUnload)
	for _, res := range r.Results {
		if a := res.Answers; a != nil && res.Backend == plan.BackendVulkan {
			t.Logf("%+v", *a)
			if a.Tokens != 64 || a.Equal < a.Tokens*3/4 {
				t.Errorf("answers %+v", *a)
			}
		}
	}
}
