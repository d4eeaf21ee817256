// Package lavapipe finds Mesa's Vulkan driver that computes on the CPU, for tests without a GPU.
package lavapipe

import (
	"path/filepath"
	"testing"
)

// Manifest returns the path of the driver's manifest. The test fails if the driver is not installed.
func Manifest(t testing.TB) string {
	t.Helper()
	found, err := filepath.Glob("/usr/share/vulkan/icd.d/lvp_icd*.json")
	if err != nil || len(found) == 0 {
		t.Fatalf("Mesa's lavapipe is not installed (%v): apt-get install mesa-vulkan-drivers; `mage test` does", err)
	}
	return found[0]
}

// Env returns the settings with which llama.cpp uses the driver's device, as KEY=VALUE. They are those
// of llama.cpp's own tests, and without layers of the host.
func Env(manifest string) []string {
	return []string{
		"VK_DRIVER_FILES=" + manifest, "VK_LOADER_LAYERS_DISABLE=~implicit~",
		"GGML_VK_VISIBLE_DEVICES=0", "GGML_VK_DISABLE_F16=1", "GGML_VK_DISABLE_COOPMAT=1",
	}
}
