//go:build e2e

package hermetic_test

import (
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/containertest"
	"forge.lthn.ai/core/go-rocm/testing/cases"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// TestVulkanDriversOfDistributions uses the Vulkan driver of each release, Mesa's lavapipe, with the
// bundle's C library. The driver's other libraries are the release's: libLLVM, and that of forky has
// the same version as the bundle's own part of one. CI has forky's, and one that is laid out as Ubuntu's.
func TestVulkanDriversOfDistributions(t *testing.T) {
	packed, command := product(t, "GOROCM_HIP_BUNDLE"), product(t, "GOROCM_CLI")
	model, err := models.Tiny(t.TempDir(), "llama-spm", ggufgen.TinyOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	eng := containertest.Engine(t)
	inputs := map[string]string{"go-rocm": command, "bundle.tar.zst": packed, "model.gguf": model}
	// On a busy machine, lavapipe compiles a shader for more than a minute.
	const onVulkan = `
export GGML_VK_VISIBLE_DEVICES=0
/w/go-rocm gpus
"$@" --backend vulkan --start-timeout 10m --stall-timeout 10m
`
	// Ubuntu's manifests, and those of others, have no architecture in their name and no directory in
	// the library's.
	const otherLayout = `
mkdir -p /w/share/vulkan/icd.d
sed 's|"library_path": ".*/|"library_path": "|' /usr/share/vulkan/icd.d/lvp_icd*.json >/w/share/vulkan/icd.d/lvp_icd.json
export XDG_DATA_DIRS=/w/share
` + onVulkan
	type release struct{ name, suite, script string }
	few := []release{{"forky", "forky", onVulkan}, {"trixie, as Ubuntu has it", "trixie", otherLayout}}
	for _, c := range cases.Of(few, few, append([]release{{"bookworm", "bookworm", onVulkan}, {"trixie", "trixie", onVulkan}}, few...)) {
		t.Run(c.name, func(t *testing.T) {
			log, err := runIn(t, eng, withLavapipe(t, eng, c.suite), inputs, append([]string{"/bin/sh", "-eu", "-c", c.script, "sh", "/w/go-rocm", "-v"}, ask()...))
			if err != nil || !strings.Contains(log, "16 tokens") {
				t.Fatalf("%v\n%s", err, log)
			}
			if !strings.Contains(log, "software") || !strings.Contains(log, "llvmpipe") || !strings.Contains(log, "the backend is Vulkan, as the options ask") || !strings.Contains(log, "all 3 layers fit on the GPU") {
				t.Errorf("it was not computed with lavapipe:\n%s", log)
			}
		})
	}
}
