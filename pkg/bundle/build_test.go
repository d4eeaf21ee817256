package bundle_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

func TestBuildDescribesDirectory(t *testing.T) {
	t.Parallel()
	dir, m := fixture(t)
	if err := bundle.WriteManifest(dir, m); err != nil {
		t.Fatal(err)
	}
	second, err := bundle.Build(dir, head())
	if err != nil {
		t.Fatal(err)
	}
	if second.Digest() != m.Digest() {
		t.Error("manifest.json in the directory changes the manifest")
	}
	read, err := bundle.ReadManifest(dir)
	if err != nil || read.Digest() != m.Digest() {
		t.Errorf("read back: %v", err)
	}
	for path, want := range map[string]gfx.Target{
		"libfoo.so": "", "rocblas/library/Kernels_gfx1100.hsaco": "gfx1100", "rocblas/library/both_gfx1100_gfx1101.x": "", longName: "gfx1101",
	} {
		if f, ok := m.File(path); !ok || f.Target != want {
			t.Errorf("%s: target %q, want %q", path, f.Target, want)
		}
	}
	// The caller's entry for a file takes precedence over its name.
	h := head()
	h.Files = []bundle.File{{Path: "rocblas/library/Kernels_gfx1100.hsaco"}, {Path: "libfoo.so", Target: "gfx1101", Needed: []string{"libc.so.6"}}}
	listed, err := bundle.Build(dir, h)
	if err != nil {
		t.Fatal(err)
	}
	if f, _ := listed.File("libfoo.so"); f.Target != "gfx1101" || len(f.Needed) != 1 {
		t.Errorf("entry for libfoo.so: %+v", f)
	}
	if f, _ := listed.File("rocblas/library/Kernels_gfx1100.hsaco"); f.Target != "" {
		t.Errorf("entry for the kernels: %+v", f)
	}
}

func TestBuildRejects(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]func(dir string) error{
		"link":      func(d string) error { return os.Symlink("libfoo.so", filepath.Join(d, "libbar.so")) },
		"bad name":  func(d string) error { return os.WriteFile(filepath.Join(d, "a b"), nil, 0o600) },
		"no server": func(d string) error { return os.Remove(filepath.Join(d, "llama-server")) },
	} {
		dir, _ := fixture(t)
		if err := plant(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := bundle.Build(dir, head()); !errors.Is(err, bundle.ErrContent) && !errors.Is(err, bundle.ErrManifest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
