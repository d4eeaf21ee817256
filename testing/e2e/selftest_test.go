//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/cmd/go-rocm/selftest"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// selfTest runs the command with a model, and returns its report, in which all steps passed and no card was tested.
func selfTest(t *testing.T, model string, args ...string) selftest.Report {
	t.Helper()
	r := selfTestBy(t, func(args ...string) (string, string, error) { return command(t, args...) }, model, args...)
	if r.CardTested {
		t.Error("a card was tested")
	}
	return r
}

// selfTestBy is selfTest with a way to run the command, for a machine that may have a card.
func selfTestBy(t *testing.T, run func(args ...string) (out, said string, err error), model string, args ...string) selftest.Report {
	t.Helper()
	dir := t.TempDir()
	name, markdown := filepath.Join(dir, "report.json"), filepath.Join(dir, "report.md")
	args = append([]string{"selftest", model, "--json", name, "--report", markdown}, args...)
	out, said, err := run(args...)
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
	checkMarkdown(t, r, string(text))
	checkNothingPersonal(t, string(raw)+string(text), dir)
	if r.Verdict != selftest.AllPassed || len(r.Checks) == 0 {
		t.Errorf("%s, %d checks", r.Verdict, len(r.Checks))
	}
	return r
}

// checkMarkdown checks that a text has the verdict, the cards and each step of a report.
func checkMarkdown(t *testing.T, r selftest.Report, text string) {
	t.Helper()
	wanted := []string{"# go-rocm selftest: " + string(r.Verdict), "| model | " + r.Model.Name + " ("}
	for _, c := range r.Cards {
		wanted = append(wanted, "| card | "+c.Name)
	}
	for _, res := range r.Results {
		wanted = append(wanted, fmt.Sprintf("| %s | %s | %s | ", res.Step, string(res.Backend), res.Outcome))
	}
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("the Markdown has no %q:\n%s", want, text)
		}
	}
}

// checkNothingPersonal checks that a report has no directory of the user or of the test, no name of the user or of the
// machine, and no serial number of a card of testing/sysroot.
func checkNothingPersonal(t *testing.T, report, dir string) {
	t.Helper()
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{home + "/", dir, os.Getenv(envWork), "13285126508775699839", "b85e402c0fb3757f", "4146196244090611202", secondCard} {
		if strings.Contains(report, secret) {
			t.Errorf("%s is in the report", secret)
		}
	}
	names := []string{os.Getenv("USER"), os.Getenv("LOGNAME")}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names, host) {
		if name == "" || name == "root" || name == "localhost" {
			continue
		}
		if regexp.MustCompile(`(^|[^\pL\pN])` + regexp.QuoteMeta(name) + `($|[^\pL\pN])`).MatchString(report) {
			t.Errorf("the name %s is in the report", name)
		}
	}
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
