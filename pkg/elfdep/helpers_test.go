package elfdep_test

import (
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

const systemDir = "usr/lib/x86_64-linux-gnu"

// hipLibrary returns a library with GPU code for gfx1100.
func hipLibrary() elfgen.Spec {
	s := elfgen.Library("libhip.so.1")
	s.Sections = []elfgen.Section{elfgen.FatBinary(elfgen.Bundle(
		elfgen.Entry{ID: "hipv4-amdgcn-amd-amdhsa--gfx1100", Code: elfgen.CodeObject(0x41, []string{"k"}, 5000)},
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
