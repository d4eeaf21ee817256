package bundle_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

func TestBuild(t *testing.T) {
	dir, m := fixture(t)
	if err := bundle.WriteManifest(dir, m); err != nil {
		t.Fatal(err)
	}
	again, err := bundle.Build(dir, head())
	if err != nil {
		t.Fatal(err)
	}
	if again.Digest() != m.Digest() {
		t.Error("manifest.json in the folder changes the manifest")
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
	// What the caller says of a file counts more than its name.
	h := head()
	h.Files = []bundle.File{{Path: "rocblas/library/Kernels_gfx1100.hsaco"}, {Path: "libfoo.so", Target: "gfx1101", Needed: []string{"libc.so.6"}}}
	told, err := bundle.Build(dir, h)
	if err != nil {
		t.Fatal(err)
	}
	if f, _ := told.File("libfoo.so"); f.Target != "gfx1101" || len(f.Needed) != 1 {
		t.Errorf("told of libfoo.so: %+v", f)
	}
	if f, _ := told.File("rocblas/library/Kernels_gfx1100.hsaco"); f.Target != "" {
		t.Errorf("told of the kernels: %+v", f)
	}
}

func TestBuildRefuses(t *testing.T) {
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

func TestVerifyDifferences(t *testing.T) {
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir, m := fixture(t)
	must(bundle.WriteManifest(dir, m))
	must(bundle.Verify(ctx, dir, m))
	in := func(p string) string { return filepath.Join(dir, filepath.FromSlash(p)) }

	must(os.Remove(in("libfoo.so.1")))
	must(os.WriteFile(in("libggml-evil.so"), nil, 0o600))
	must(os.MkdirAll(in("more/of/it"), 0o750))
	must(os.Chmod(in("llama-server"), 0o644))
	must(os.Truncate(in("libempty.so"), 3))
	writeFiles(t, dir, map[string][]byte{"libsparse.so": make([]byte, 9<<20)})
	must(os.Remove(in("libfoo.so")))
	must(os.Symlink("/etc/passwd", in("libfoo.so")))
	must(os.RemoveAll(in("licenses")))
	appendTo(t, in("manifest.json"), " ")

	err := bundle.Verify(ctx, dir, m)
	var ve *bundle.VerifyError
	if !errors.As(err, &ve) || !errors.Is(err, bundle.ErrContent) {
		t.Fatalf("got %v, want a VerifyError", err)
	}
	want := map[string]bundle.DifferenceKind{
		"libempty.so": bundle.WrongSize, "libfoo.so": bundle.WrongType, "libfoo.so.1": bundle.Missing, "libggml-evil.so": bundle.Extra,
		"libsparse.so": bundle.WrongSum, "licenses/libstdc++6/copyright": bundle.Missing, "llama-server": bundle.WrongMode,
		"manifest.json": bundle.WrongSize, "more": bundle.Extra,
	}
	for _, d := range ve.Differences {
		if want[d.Path] != d.Kind {
			t.Errorf("%s, want %q", d, want[d.Path])
		}
		if !strings.HasPrefix(d.String(), d.Path+": ") {
			t.Errorf("line %q", d)
		}
		delete(want, d.Path)
	}
	if len(want) > 0 {
		t.Errorf("not seen: %v", want)
	}
	if !strings.Contains(err.Error(), "9 places") {
		t.Errorf("error %q", err)
	}
	for _, d := range ve.Differences {
		if !strings.Contains(ve.Details(), "\n  "+d.String()) {
			t.Errorf("the list lacks %s: %q", d, ve.Details())
		}
	}
	if err := bundle.Verify(ctx, filepath.Join(dir, "nowhere"), m); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// A name that a stranger chose makes one line, and drives no terminal.
func TestVerifyListIsOfLines(t *testing.T) {
	dir, m := fixture(t)
	if err := bundle.WriteManifest(dir, m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x\nok: all is well\x1b[2J"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var ve *bundle.VerifyError
	if err := bundle.Verify(t.Context(), dir, m); !errors.As(err, &ve) {
		t.Fatal(err)
	}
	want := dir + " differs from its manifest in 1 places:\n  x\uFFFDok: all is well\uFFFD[2J: extra"
	if got := ve.Details(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
