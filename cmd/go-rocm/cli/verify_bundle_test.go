//go:build linux && amd64

package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// damaged is a pack with one bit changed in the middle of it.
func damaged(t *testing.T, pack string) string {
	t.Helper()
	b, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 0x40
	out := filepath.Join(t.TempDir(), "damaged.tar.zst")
	if err := os.WriteFile(out, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// Each way to name a bundle tells a right one from a damaged one and from none,
// says once where and what the damage is, and what to do.
func TestVerifyNamesWhereAndWhatToDo(t *testing.T) {
	pack := splitBundle(t)
	bad := damaged(t, pack)
	embedded := func(path string) fs.FS {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return fstest.MapFS{"payload/README": {}, "payload/llama-hip.tar.zst.000": {Data: b}}
	}
	folder := func(spoil func(dir string) error) string {
		dir := unpackFor(t, pack, nil)
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	whole := folder(func(string) error { return nil })
	changed := folder(func(dir string) error { return os.WriteFile(filepath.Join(dir, "k_gfx1100.co"), []byte("x"), 0o600) })
	half := unpackFor(t, pack, []gfx.Target{"gfx1100"})
	const remedy = "fetch, install or build it again"
	built := func(fsys fs.FS) func(context.Context, io.Writer) error {
		return func(ctx context.Context, out io.Writer) error { return verifyEmbedded(ctx, out, fsys) }
	}
	installed := func(dir string) func(context.Context, io.Writer) error {
		return func(ctx context.Context, out io.Writer) error { return verifyInstalled(ctx, out, dir) }
	}
	path := func(path string) func(context.Context, io.Writer) error {
		return func(ctx context.Context, out io.Writer) error { return verifyPath(ctx, out, path, keyFiles{}) }
	}
	for _, tc := range []struct {
		name   string
		verify func(context.Context, io.Writer) error
		want   []string // parts of the error, each there once; nil: the bundle is whole
		never  string
	}{
		{"file", path(pack), nil, ""},
		{"damaged file", path(bad), []string{"verify " + bad + ": ", "bad bundle content: ", remedy}, ""},
		{"folder", path(whole), nil, ""},
		{"changed folder", path(changed), []string{"verify " + changed, "1 places:\n", "\n  k_gfx1100.co: sha256 is", remedy}, ""},
		{"built in", built(embedded(pack)), nil, ""},
		{"built in and damaged", built(embedded(bad)), []string{"verify the built-in hip bundle: ", "bad bundle content: ", remedy}, ""},
		{"not built in", built(fstest.MapFS{"payload/README": {}}), []string{"no bundle is built into this program", "--installed"}, "GOROCM_BUNDLE"},
		{"installed", installed(whole), nil, ""},
		{"installed and changed", installed(changed), []string{"verify " + changed, "\n  k_gfx1100.co: sha256 is", remedy}, ""},
		{"installed for one target", installed(half), []string{"verify " + half, "\n  k_gfx1101.co: missing", remedy}, ""},
		{"not installed", installed(filepath.Join(t.TempDir(), "llama")), []string{"no bundle is installed in", "go-rocm-llama-hip"}, "no such file"},
	} {
		var out bytes.Buffer
		err := tc.verify(t.Context(), &out)
		if tc.want == nil {
			if err != nil || !strings.HasPrefix(out.String(), "llama-test v1 is whole: 4 files") {
				t.Errorf("%s: %q, %v", tc.name, out.String(), err)
			}
			continue
		}
		text := fmt.Sprint(err)
		for _, want := range tc.want {
			if strings.Count(text, want) != 1 {
				t.Errorf("%s: %q is not there once: %s", tc.name, want, text)
			}
		}
		if out.Len() > 0 || tc.never != "" && strings.Contains(text, tc.never) {
			t.Errorf("%s: %q, %s", tc.name, out.String(), text)
		}
	}
}

// Whatever differs is listed, be it ever so much.
func TestVerifyListsAll(t *testing.T) {
	dir := unpackFor(t, splitBundle(t), nil)
	for i := range 8 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("extra%d", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := verifyPath(t.Context(), io.Discard, dir, keyFiles{})
	for i := range 8 {
		if line := fmt.Sprintf("\n  extra%d: extra\n", i); !strings.Contains(fmt.Sprint(err), line) {
			t.Errorf("%q is not in %v", line, err)
		}
	}
}
