//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/speed"
	"forge.lthn.ai/core/go-rocm/testing/cases"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/lavapipe"
	"forge.lthn.ai/core/go-rocm/testing/models"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// onLavapipe makes the hip bundle the one of this process and of the programs that the test starts, and
// Mesa's driver that computes on the CPU their only Vulkan driver. With masked, they may use it.
func onLavapipe(t *testing.T, masked bool) {
	t.Helper()
	hipBundle(t)
	t.Setenv("VK_DRIVER_FILES", lavapipe.Manifest(t))
	if masked {
		t.Setenv(gpu.EnvVulkan, "0")
	}
}

// compileTimeout is the limit of a start on lavapipe. It compiles the shaders on the processors, which other tests
// use too, before the first token and without a sign of progress.
const compileTimeout = 10 * time.Minute

// loadOn loads a model with a backend: with Vulkan, all its layers are on the device.
func loadOn(t *testing.T, path string, backend plan.Backend, args ...string) *rocm.Model {
	t.Helper()
	var s rocm.Settings
	s.Context, s.Slots, s.Backend, s.Args, s.Timeouts.Start = 512, 1, backend, args, compileTimeout
	model, err := new(rocm.Backend).Load(t.Context(), path, s)
	if err != nil {
		t.Fatalf("with %s: %v", backend, err)
	}
	t.Cleanup(func() {
		if err := model.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	checkBackend(t, model, backend)
	return model
}

// checkBackend checks that the server computes with the backend: by the plan, and by the driver, which
// no other backend loads.
func checkBackend(t *testing.T, model *rocm.Model, backend plan.Backend) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", model.Server().Child.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	p, vulkan := model.Server().Plan, backend == plan.BackendVulkan
	if p.Backend != backend || p.GPU != vulkan || vulkan && p.Layers != p.TotalLayers || strings.Contains(string(maps), "libvulkan_lvp.so") != vulkan {
		t.Errorf("wanted %s, the plan has %s with %d of %d layers; these are mapped:\n%s", backend, p.Backend, p.Layers, p.TotalLayers, maps)
	}
}

// greedy returns the tokens of an answer, most likely ones only.
func greedy(t *testing.T, model *rocm.Model, prompt string, limit int) (ids []int32) {
	t.Helper()
	for token := range model.Generate(t.Context(), prompt, inference.WithMaxTokens(limit)) {
		ids = append(ids, token.ID)
	}
	if err := model.Err(); err != nil {
		t.Fatal(err)
	}
	return ids
}

// TestVulkanComputesWhatTheCPUDoes compares the first tokens of random models, in each type of weights
// that this project can write, or in CI one of each family. The CPU's kernels round the state to eight bits for
// most types, so that later tokens, whose probabilities are close in a random model, may differ.
func TestVulkanComputesWhatTheCPUDoes(t *testing.T) {
	onLavapipe(t, true)
	const prompt = "The quick brown fox jumps over the lazy dog, and then it sleeps until the morning."
	few := []gguf.TensorType{gguf.F16, gguf.Q4_0, gguf.Q4_K, gguf.IQ4_NL}
	for _, typ := range cases.Of(few, few, append([]gguf.TensorType{gguf.F32, gguf.F16}, ggufgen.QuantisedTypes()...)) {
		t.Run(typ.String(), func(t *testing.T) {
			path, err := models.Tiny(t.TempDir(), "llama-spm", ggufgen.TinyOptions{Seed: 1, Width: 256, Feed: 256, Type: typ})
			if err != nil {
				t.Fatal(err)
			}
			want := greedy(t, loadOn(t, path, plan.BackendCPU), prompt, 6)
			got := greedy(t, loadOn(t, path, plan.BackendVulkan), prompt, 6)
			if len(want) == 0 || !slices.Equal(got, want) {
				t.Errorf("the CPU answers %d, Vulkan %d", want, got)
			}
		})
	}
}

// checkMemory compares the memory that the plan expects on the device, Vulkan0 or ROCm0, with the server's own report in
// its log: weights and cache within 1 %, the sum within 5 %. Of a tiny model, the sum may differ by slack more, and the cache
// by what the log rounds.
func checkMemory(t *testing.T, model *rocm.Model, device string, slack float64) {
	t.Helper()
	const rounding = 1 << 20 / 200. // half of the log's last digit
	buffer := regexp.MustCompile(device + ` (model|KV|compute) buffer size = +([0-9.]+) MiB`)
	reported := map[string]float64{}
	for _, m := range buffer.FindAllStringSubmatch(strings.Join(model.Server().Child.LogTail(), "\n"), -1) {
		size, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		reported[m[1]] += size * (1 << 20)
	}
	e := model.Server().Plan.Devices[0]
	t.Logf("weights %d, cache %d, computation %d; the server reports %v", e.Weights, e.KV, e.Compute, reported)
	for _, c := range []struct {
		what                  string
		expected              uint64
		got, tolerance, slack float64
	}{
		{"weights", e.Weights, reported["model"], 0.01, 0},
		{"cache", e.KV, reported["KV"], 0.01, min(slack, rounding)},
		{"sum", e.Used(), reported["model"] + reported["KV"] + reported["compute"], 0.05, slack},
	} {
		if difference := math.Abs(float64(c.expected) - c.got); c.got == 0 || difference > c.tolerance*c.got+c.slack {
			t.Errorf("%s: the plan expects %d bytes, the server reports %.0f", c.what, c.expected, c.got)
		}
	}
}

// TestVulkanAnswers asks a trained model, kills its server and asks again. The next server computes
// with Vulkan too: a killed process is no failure of the backend.
func TestVulkanAnswers(t *testing.T) {
	onLavapipe(t, true)
	model := loadOn(t, realModel(t, models.SmolLM2()), plan.BackendVulkan, "--log-verbosity", "4")
	checkMemory(t, model, "Vulkan0", 0)
	if text := chat(t, model); !strings.Contains(text, answer) {
		t.Errorf("answered %q", text)
	}
	before := model.Server().Child.Pid()
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the end of the killed server", func() bool { return ended(before) })
	if text := chat(t, model); !strings.Contains(text, answer) {
		t.Errorf("after the server was killed it answered %q", text)
	}
	if model.Server().Child.Pid() == before {
		t.Error("the killed server runs")
	}
	checkBackend(t, model, plan.BackendVulkan)
}

// command runs the command and returns its output and what it says.
func command(t *testing.T, args ...string) (out, said string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), cli(t), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// TestSoftwareDriverIsNeverChosen runs the command on a machine with only lavapipe, which nobody asked
// for.
func TestSoftwareDriverIsNeverChosen(t *testing.T) {
	onLavapipe(t, false)
	path := tiny(t, "llama-spm", 1)
	out, said, err := command(t, "gpus")
	if err != nil || !strings.Contains(out, "llvmpipe") || !strings.Contains(out, "software") || !strings.Contains(out, "set GGML_VK_VISIBLE_DEVICES to use it all the same") {
		t.Errorf("gpus: %v\n%s%s", err, out, said)
	}
	out, said, err = command(t, "run", "--backend", "vulkan", "--raw", "-p", "Hello", path)
	if err == nil || !strings.Contains(said, "it computes on the CPU; set GGML_VK_VISIBLE_DEVICES to use it all the same") {
		t.Errorf("run: %v\n%s%s", err, out, said)
	}
	// With the mask too, auto prefers the CPU's own module.
	t.Setenv(gpu.EnvVulkan, "0")
	model, err := new(rocm.Backend).Load(t.Context(), path, rocm.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	if p := model.Server().Plan; p.Backend != plan.BackendCPU || p.GPU {
		t.Errorf("auto chose %s: %q", p.Backend, p.Reasons)
	}
	s := rocm.Settings{}
	s.Devices.Required = true
	_, err = new(rocm.Backend).Load(t.Context(), path, s)
	if err := errors.Join(model.Close()); err != nil {
		t.Error(err)
	}
	if !errors.Is(err, plan.ErrNoGPU) {
		t.Errorf("a GPU was required: %v", err)
	}
}

// newerDriver compiles a library that needs a C library with a function of the version GLIBC_2.99.
func newerDriver(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"libc.c": "int newer(void) { return 1; }\n", "versions.map": "GLIBC_2.99 { global: newer; };\n",
		"driver.c": "int newer(void);\nint vk_icdNegotiateLoaderICDInterfaceVersion(unsigned *v) { *v = 5; return newer(); }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libc.so.6", "-Wl,--version-script=versions.map", "-o", "libc.so.6", "libc.c"},
		{"-shared", "-fPIC", "-nostdlib", "-o", "libvulkan_newer.so", "driver.c", "libc.so.6"},
	} {
		cmd := exec.CommandContext(t.Context(), "gcc", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return filepath.Join(dir, "libvulkan_newer.so")
}

// TestDriverForANewerLibrary reports a driver that needs a newer C library than the bundle's, by the
// words of the dynamic loader.
func TestDriverForANewerLibrary(t *testing.T) {
	hipBundle(t)
	library := newerDriver(t)
	manifest := filepath.Join(filepath.Dir(library), "newer_icd.json")
	text := fmt.Sprintf(`{"file_format_version": "1.0.1", "ICD": {"library_path": %q, "api_version": "1.4.335"}}`, library)
	if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VK_DRIVER_FILES", manifest)
	path := tiny(t, "llama-spm", 1)
	const why = "version `GLIBC_2.99' not found"
	if out, said, err := command(t, "run", "--backend", "vulkan", "--raw", "-p", "Hello", path); err == nil || !strings.Contains(said, why) {
		t.Errorf("run: %v\n%s%s", err, out, said)
	}
	if out, said, _ := command(t, "doctor"); !strings.Contains(out, why) {
		t.Errorf("doctor:\n%s%s", out, said)
	}
	// auto runs the model on the CPU, with a warning.
	if out, said, err := command(t, "run", "--raw", "-p", "Hello", "-n", "4", "--stats", path); err != nil || !strings.Contains(said, why) {
		t.Errorf("run with auto: %v\n%s%s", err, out, said)
	}
}

// TestCommandsWithLavapipe runs the commands that use Vulkan where the mask names the device.
func TestCommandsWithLavapipe(t *testing.T) {
	onLavapipe(t, true)
	path := realModel(t, models.SmolLM2())
	out, said, err := command(t, "gpus", "--json")
	var devices []gpu.Device
	if err := errors.Join(err, json.Unmarshal([]byte(out), &devices)); err != nil || len(devices) != 1 || devices[0].Vulkan == nil || !devices[0].Vulkan.Software || !devices[0].Vulkan.Requested {
		t.Errorf("gpus: %v\n%s%s", err, out, said)
	}
	out, said, err = command(t, "fit", "--backend", "vulkan", "--context", "512", path)
	if err != nil || !strings.Contains(out, "llvmpipe") || !strings.Contains(out, "Vulkan") {
		t.Errorf("fit: %v\n%s%s", err, out, said)
	}
	out, said, err = command(t, "run", "--backend", "vulkan", "--context", "512", "-n", "16", "--temperature", "0", "-p", question, path)
	if err != nil || !strings.Contains(out, answer) {
		t.Errorf("run: %v\n%s%s", err, out, said)
	}
	out, said, err = command(t, "bench", "--backend", "vulkan", "--quick", "--depth", "0", "--rounds", "1", "--prompt-tokens", "32", "--answer-tokens", "4", "--json", tiny(t, "llama-spm", 1))
	var record speed.Record
	if err := errors.Join(err, json.Unmarshal([]byte(out), &record)); err != nil || len(record.Runs) != 1 {
		t.Fatalf("bench: %v\n%s%s", err, out, said)
	}
	if run := record.Runs[0]; run.Backend != "vulkan" || run.Error != "" || len(run.Depths) != 1 || run.Depths[0].Prompt.Mean <= 0 || run.Depths[0].Generation.Mean <= 0 {
		t.Errorf("bench measured %+v", run)
	}
}
