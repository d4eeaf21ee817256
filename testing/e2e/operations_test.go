//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"forge.lthn.ai/core/go-rocm/internal/backendops"
)

// usedByModels are operations that language models consist of. A module that supports none of their cases would make
// llama.cpp compute them with the CPU.
var usedByModels = []string{
	"ADD", "ARGSORT", "CONT", "CPY", "FLASH_ATTN_EXT", "GET_ROWS", "MUL", "MUL_MAT", "MUL_MAT_ID", "NORM", "RMS_NORM", "ROPE", "SCALE", "SET_ROWS",
	"SILU", "SOFT_MAX", "SWIGLU",
}

// backendOps returns the path of llama.cpp's test-backend-ops.
func backendOps(t *testing.T) string {
	t.Helper()
	path := os.Getenv(envBackendOps)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s has to name llama.cpp's test-backend-ops: %v; `mage test` builds it and sets the variable", envBackendOps, err)
	}
	return path
}

// shortOperations computes operations with a device and with the CPU's reference, and compares them.
func shortOperations(t *testing.T, p backendops.Program, short backendops.Short) {
	t.Helper()
	results, err := short.Run(t.Context(), p)
	if err != nil {
		t.Errorf("the operations of %s:\n%v", p.Device, err)
	}
	t.Logf("%s: %d cases, %d of them are equal, %d not supported", p.Device, len(results), backendops.Count(results, backendops.Equal), backendops.Count(results, backendops.Unsupported))
}

// TestVulkanOperations computes the smallest case of each operation, and small ones of the operations that a module may
// fuse, with the shipped Vulkan module and with the CPU's reference, by llama.cpp's own test, which compares the results
// within its own tolerance. The driver is Mesa's lavapipe of Debian 13: that of Debian 12 damages the heap in some cases.
func TestVulkanOperations(t *testing.T) {
	in := unpackedHIP(t)
	driver := os.Getenv(envLavapipe)
	manifest := filepath.Join(driver, "lvp_icd.json")
	if _, err := os.Stat(manifest); err != nil {
		t.Fatalf("%s has to name the directory with Mesa's lavapipe: %v; `mage test` makes it and sets the variable", envLavapipe, err)
	}
	argv := in.Command(driver)
	argv[len(argv)-1] = backendOps(t)
	shortOperations(t, backendops.Program{Argv: argv, Dir: in.Dir, Device: "Vulkan0", Env: backendops.SoftwareEnv(manifest)}, backendops.Short{
		Processes: runtime.GOMAXPROCS(0), Fused: backendops.FusedShort, Required: usedByModels,
		Choose: func(listed []backendops.Case) []backendops.Case { return backendops.Smallest(listed, 1e7) },
	})
}
