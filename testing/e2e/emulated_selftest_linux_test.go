//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm/cmd/go-rocm/selftest"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/hsa"
)

// fewOperations is a program that runs test-backend-ops with the arguments of selftest, and with operations.
const fewOperations = `#include <unistd.h>

int main(int count, char *args[]) {
	char *argv[64] = {LOADER, "--library-path", LIBRARIES, PROGRAM};
	int n = 4;
	for (int i = 1; i < count && n < 60; i++)
		argv[n++] = args[i];
	argv[n++] = "-o";
	argv[n] = OPERATIONS;
	execv(LOADER, argv);
	return 127;
}
`

// someOperations builds the program of fewOperations for the rig, and returns its path.
func (r *rig) someOperations(t *testing.T, operations string) string {
	t.Helper()
	dir := t.TempDir()
	source, path := filepath.Join(dir, "operations.c"), filepath.Join(dir, "operations")
	if err := os.WriteFile(source, []byte(fewOperations), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-Wall", "-Wextra", "-Werror", "-o", path, source}
	for name, value := range map[string]string{"LOADER": r.Command()[0], "LIBRARIES": r.Dir, "PROGRAM": backendOps(t), "OPERATIONS": operations} {
		args = append(args, fmt.Sprintf("-D%s=%q", name, value))
	}
	if out, err := exec.CommandContext(t.Context(), "cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// TestEmulatedCardPassesTheSelfTest runs `go-rocm selftest` on a machine with a card, as an owner of one does, and reads the
// report: each step passed on the card, which is named, and nothing personal is in it. Of the operations it computes some;
// TestEmulatedOperations computes more.
func TestEmulatedCardPassesTheSelfTest(t *testing.T) {
	r := newRig(t, "gfx1100")
	r.asOwnBuild(t)
	t.Setenv(gpu.EnvVulkan, "") // no driver that computes on the CPU is a second device
	kernels := fileOf(t, hsa.EnvReport)
	run := func(args ...string) (string, string, error) { return r.runCommand(t, args...) }
	got := selfTestBy(t, run, tiny(t, "llama-spm", 1), "--backend", "hip", "--operations", r.someOperations(t, "SCALE,SILU,DIAG_MASK_INF"))
	if !got.CardTested || got.Backend != plan.BackendHIP || got.Ended != "" {
		t.Errorf("card tested: %v, backend %s, ended %q", got.CardTested, got.Backend, got.Ended)
	}
	card := selftest.Card{Name: "AMD Radeon RX 7900 XTX", PCI: "0000:03:00.0", Target: "gfx1100", IDs: "1002:744c:c8", Bytes: 25753026560}
	if at := slices.IndexFunc(got.Cards, func(c selftest.Card) bool { return !c.Software }); at < 0 || got.Cards[at] != card {
		t.Errorf("the cards are %+v, and not %+v", got.Cards, card)
	}
	checkSteps(t, got, "", selftest.StepMachine, selftest.StepCards, selftest.StepSensors)
	checkSteps(t, got, plan.BackendCPU, selftest.StepLoad, selftest.StepAnswers, selftest.StepUnload)
	checkSteps(t, got, plan.BackendHIP, selftest.StepLoad, selftest.StepMemory, selftest.StepAnswers, selftest.StepCancel, selftest.StepKill,
		selftest.StepUnload, selftest.StepSpeed, selftest.StepOperations)
	for _, res := range got.Results {
		switch {
		case res.Step == selftest.StepOperations:
			checkOperations(t, res.Operations, "DIAG_MASK_INF", "SCALE", "SILU")
		case res.Step == selftest.StepSensors:
			if len(res.Sensors) != 1 || res.Sensors[0].EdgeCelsius == 0 || res.Sensors[0].PowerWatts == 0 {
				t.Errorf("the sensors have %+v", res.Sensors)
			}
		case res.Step == selftest.StepMemory && res.Backend == plan.BackendHIP:
			if m := res.Memory; m == nil || m.Place != card.Name || m.Server == 0 || m.Weights == 0 {
				t.Errorf("the memory is %+v", m)
			}
		}
	}
	ranOnlyOn(t, kernels, "gfx1100")
	if left := usersOf(t, filepath.Join(r.Dir, "llama-server")); len(left) > 0 {
		t.Errorf("these processes run: %v", left)
	}
}

// checkOperations checks that all cases of operations were computed by the HIP module, and are the CPU's.
func checkOperations(t *testing.T, o *selftest.Operations, names ...string) {
	t.Helper()
	if o == nil || o.Device != "ROCm0" || !o.Complete || o.Different != 0 || o.Equal == 0 {
		t.Fatalf("the operations are %+v", o)
	}
	for _, name := range names {
		if !slices.ContainsFunc(o.Table, func(op selftest.Operation) bool { return op.Name == name && op.Equal > 0 && op.Different == 0 }) {
			t.Errorf("the operations have no %s: %+v", name, o.Table)
		}
	}
}
