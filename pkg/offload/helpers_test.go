package offload_test

import (
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

// EF_AMDGPU_MACH numbers of the targets in tests.
const (
	mach1030 = 0x36
	mach1100 = 0x41
	mach1101 = 0x46
)

const (
	hostID   = "host-x86_64-unknown-linux--"
	idPrefix = "hipv4-amdgcn-amd-amdhsa--"
	id1030   = idPrefix + "gfx1030"
	id1100   = idPrefix + "gfx1100"
	id1101   = idPrefix + "gfx1101"
)

// fatLibrary returns a library with GPU code of several translation units for
// gfx1030, gfx1100 and gfx1101.
func fatLibrary(units ...[]string) elfgen.Spec {
	var bundles [][]byte
	for i, kernels := range units {
		fill := 5000 * (i + 1)
		bundles = append(bundles, elfgen.Bundle(
			elfgen.Entry{ID: hostID},
			elfgen.Entry{ID: id1030, Code: elfgen.CodeObject(mach1030, kernels, fill)},
			elfgen.Entry{ID: id1100, Code: elfgen.CodeObject(mach1100, kernels, fill)},
			elfgen.Entry{ID: id1101, Code: elfgen.CodeObject(mach1101, kernels, fill+1)},
		))
	}
	s := elfgen.Library("libfat.so.1")
	s.Sections = []elfgen.Section{elfgen.FatBinary(bundles...)}
	return s
}

// largeFat returns a library whose code for gfx1030 takes 8 MiB, in the middle.
func largeFat() elfgen.Spec {
	s := elfgen.Library("large.so")
	s.Sections = []elfgen.Section{elfgen.FatBinary(elfgen.Bundle(
		elfgen.Entry{ID: id1100, Code: elfgen.CodeObject(mach1100, []string{"k"}, 100)},
		elfgen.Entry{ID: id1030, Code: elfgen.CodeObject(mach1030, []string{"k"}, 8<<20)},
		elfgen.Entry{ID: id1101, Code: elfgen.CodeObject(mach1101, []string{"k"}, 100)},
	))}
	return s
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkOnlyFile fails the test where the directory of path holds other files.
func checkOnlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
