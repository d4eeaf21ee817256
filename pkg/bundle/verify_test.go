package bundle_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

func TestVerifyListsDifferences(t *testing.T) {
	t.Parallel()
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
		t.Errorf("a missing directory: %v", err)
	}
}

// A hostile file name adds no line and does not control the terminal.
func TestDetailsReplacesControlCharacters(t *testing.T) {
	t.Parallel()
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
