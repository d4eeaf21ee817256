//go:build e2e

package e2e

import (
	"errors"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/models"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

// TestHIPBundleOnSimulatedCard plans with the kernel's files of a real card on a
// machine without a card: llama-server rejects the device of the plan. If a GPU is
// required, that is the error; otherwise the model runs on the CPU with a warning.
func TestHIPBundleOnSimulatedCard(t *testing.T) {
	hipBundle(t)
	path := realModel(t, models.SmolLM2())
	s := rocm.Settings{}
	s.SysRoot = sysroot.Write(t, "rx7900xtx", nil)
	s.Context, s.Devices.Required = 2048, true
	if _, err := new(rocm.Backend).Load(t.Context(), path, s); !errors.Is(err, supervise.ErrNoDevice) {
		t.Errorf("with a GPU required: %v", err)
	}
	s.Devices.Required = false
	model, err := new(rocm.Backend).Load(t.Context(), path, s)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := model.Close(); err != nil {
			t.Error(err)
		}
	}()
	if p := model.Server().Plan; p.GPU || len(p.Reasons) == 0 || !strings.Contains(p.Reasons[0], "did not start") {
		t.Errorf("gpu %v, %q", p.GPU, p.Reasons)
	}
	if text := chat(t, model); !strings.Contains(text, answer) {
		t.Errorf("answered %q", text)
	}
}
