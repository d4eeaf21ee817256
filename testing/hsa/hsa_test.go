package hsa_test

import (
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/hsa"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReplaceChangesOneFile(t *testing.T) {
	dir := t.TempDir()
	bundle, library, to := filepath.Join(dir, "bundle"), filepath.Join(dir, "new.so"), filepath.Join(dir, "copy")
	write(t, filepath.Join(bundle, hsa.Library), "shipped")
	write(t, filepath.Join(bundle, "rocblas", "library", "a.dat"), "tensile")
	write(t, library, "emulated")
	if err := os.Symlink("rocblas", filepath.Join(bundle, "link")); err != nil {
		t.Fatal(err)
	}
	if err := hsa.Replace(bundle, library, to); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(to, hsa.Library):                       "emulated",
		filepath.Join(bundle, hsa.Library):                   "shipped",
		filepath.Join(to, "link", "library", "a.dat"):        "tensile",
		filepath.Join(to, "rocblas", "library", "a.dat"):     "tensile",
		filepath.Join(bundle, "rocblas", "library", "a.dat"): "tensile",
	} {
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, and not %q", path, got, err, want)
		}
	}
}

func TestReplaceNeedsTheFile(t *testing.T) {
	bundle := t.TempDir()
	if err := hsa.Replace(bundle, filepath.Join(bundle, "x"), filepath.Join(t.TempDir(), "copy")); err == nil {
		t.Error("a bundle without the library is accepted")
	}
}
