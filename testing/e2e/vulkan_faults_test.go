//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/lavapipe"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

// The card of the machine rx7600 as its Vulkan driver describes it. HIP has no code for it.
const (
	vulkanCard             = "AMD Radeon RX 7600 (RADV NAVI33)"
	vulkanCardMemory int64 = 8573157376
)

// Faults of the device, by the words of testdata/faulty_driver.c.
const (
	faultHang = "hang" // a queue that never ends
	faultLost = "lost" // the driver reports that the device was reset
)

// faultyCard is a machine with a card whose only driver is testdata/faulty_driver.c.
type faultyCard struct {
	root  string // of the machine's files
	fault string // the file that causes a fault
}

// newFaultyCard compiles the driver, and makes the hip bundle and the driver those of this process and of
// the programs that the test starts. What is remembered of the card is the test's own.
func newFaultyCard(t *testing.T) faultyCard {
	t.Helper()
	hipBundle(t)
	var manifest struct {
		ICD struct {
			Library string `json:"library_path"`
		} `json:"ICD"`
	}
	raw, err := os.ReadFile(lavapipe.Manifest(t))
	if err := errors.Join(err, json.Unmarshal(raw, &manifest)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := faultyCard{fault: filepath.Join(dir, "fault")}
	library := filepath.Join(dir, "libvulkan_faulty.so")
	define := func(name, value string) string { return fmt.Sprintf("-D%s=%q", name, value) }
	out, err := exec.CommandContext(t.Context(), "gcc", "-Wall", "-Werror", "-shared", "-fPIC", "-O2", "-o", library,
		define("DRIVER", manifest.ICD.Library), define("FAULT", c.fault), define("NAME", vulkanCard), fmt.Sprintf("-DMEMORY=%dull", vulkanCardMemory),
		"testdata/faulty_driver.c").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	path := filepath.Join(dir, "faulty_icd.json")
	text := fmt.Sprintf(`{"file_format_version": "1.0.1", "ICD": {"library_path": %q, "api_version": "1.3.0"}}`, library)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VK_DRIVER_FILES", path)
	c.root = sysroot.Write(t, "rx7600", map[string]string{path: text, "proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 12582912 kB\n"})
	return c
}

// load loads a tiny model on the machine, all of it on the card, and asks it once.
func (c faultyCard) load(t *testing.T, path string, backend plan.Backend, stall time.Duration) *rocm.Model {
	t.Helper()
	s := c.settings(backend)
	s.Timeouts.Stall = stall
	model, err := new(rocm.Backend).Load(t.Context(), path, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := model.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	checkBackend(t, model, plan.BackendVulkan)
	if err := generateSome(t, model); err != nil {
		t.Fatal(err)
	}
	return model
}

func (c faultyCard) settings(backend plan.Backend) rocm.Settings {
	s := rocm.Settings{SysRoot: c.root, Restart: rocm.Restart{MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond}}
	s.Context, s.Slots, s.Backend, s.Timeouts.Start = 512, 1, backend, compileTimeout
	return s
}

// hit causes a fault during a request, and returns why the supervisor ended the process. The request fails, or
// the next process answers it if the connection broke before a response.
func (c faultyCard) hit(t *testing.T, model *rocm.Model, fault string) error {
	t.Helper()
	events, stop := model.Server().Child.Subscribe()
	defer stop()
	// The file appears with its content.
	err := os.WriteFile(c.fault+".new", []byte(fault), 0o600)
	if err := errors.Join(err, os.Rename(c.fault+".new", c.fault)); err != nil {
		t.Fatal(err)
	}
	t.Logf("the request that met the fault ended with %v", generateSome(t, model))
	for e := range events {
		if e.To == supervise.Starting && e.Cause != nil {
			return e.Cause
		}
	}
	t.Fatalf("the server ended: %v", model.Server().Child.Err())
	return nil
}

// generateSome asks for some tokens.
func generateSome(t *testing.T, model *rocm.Model) error {
	t.Helper()
	n := 0
	for range model.Generate(t.Context(), "The quick brown fox", inference.WithMaxTokens(4)) {
		n++
	}
	if err := model.Err(); err != nil {
		return err
	}
	if n == 0 {
		return errors.New("there was no token")
	}
	return nil
}

// TestVulkanDeviceFaultRestarts lets the device of a Vulkan driver fail under the real server: the process
// is ended, and a new one on the same device answers.
func TestVulkanDeviceFaultRestarts(t *testing.T) {
	card := newFaultyCard(t)
	path := tiny(t, "llama-spm", 1)
	for _, c := range []struct {
		fault string
		stall time.Duration
		cause error
	}{
		// The first load takes longest: Mesa then has the shaders in its cache.
		{faultLost, compileTimeout, supervise.ErrGPUHang},
		{faultHang, 20 * time.Second, supervise.ErrStalled},
	} {
		t.Run(c.fault, func(t *testing.T) {
			model := card.load(t, path, plan.BackendVulkan, c.stall)
			if cause := card.hit(t, model, c.fault); !errors.Is(cause, c.cause) {
				t.Errorf("the process was ended because of %v, want %v", cause, c.cause)
			}
			if err := generateSome(t, model); err != nil {
				t.Errorf("the next request: %v", err)
			}
			checkBackend(t, model, plan.BackendVulkan)
		})
	}
}

// TestVulkanStepsDownToTheCPU lets the device of a Vulkan driver fail three times in a server whose settings leave
// the backend open: the CPU answers, and the next load does not repeat the failures.
func TestVulkanStepsDownToTheCPU(t *testing.T) {
	card := newFaultyCard(t)
	path := tiny(t, "llama-spm", 1)
	model := card.load(t, path, plan.BackendAuto, compileTimeout)
	for n := range 3 {
		if cause := card.hit(t, model, faultLost); !errors.Is(cause, supervise.ErrGPUHang) {
			t.Fatalf("fault %d: the process was ended because of %v", n+1, cause)
		}
	}
	if err := generateSome(t, model); err != nil {
		t.Fatalf("after three faults: %v", err)
	}
	if p := model.Server().CurrentPlan(); p.Backend != plan.BackendCPU || p.GPU {
		t.Errorf("after three faults it computes with %s: %q", p.Backend, p.Reasons)
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", model.Server().Child.Pid()))
	if err != nil || strings.Contains(string(maps), "libvulkan_") {
		t.Errorf("the process on the CPU has a Vulkan driver: %v\n%s", err, maps)
	}
	p, err := rocm.Plan(path, card.settings(plan.BackendAuto))
	if err != nil {
		t.Fatal(err)
	}
	if p.Backend != plan.BackendCPU || !strings.Contains(p.Fallback, "failed on this card") {
		t.Errorf("the next load would use %s: %q, %q", p.Backend, p.Fallback, p.Reasons)
	}
}
