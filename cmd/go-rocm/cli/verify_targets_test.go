//go:build linux && amd64

package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// splitBundle packs a bundle for two targets and returns the pack.
func splitBundle(t *testing.T) string {
	t.Helper()
	return splitBundleNamed(t, "v1")
}

func splitBundleNamed(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range map[string]string{
		"llama-server": "#!/bin/sh\n", "libfat.so": strings.Repeat("head", 2000) + strings.Repeat("a", 40_000) + strings.Repeat("b", 40_000),
		"k_gfx1100.co": "a", "k_gfx1101.co": "b",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "llama-server"), 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := bundle.Build(dir, bundle.Manifest{
		Name: "llama-test", Variant: "hip", Flavour: bundle.FlavourSystem, Version: version, Targets: []gfx.Target{"gfx1100", "gfx1101"},
		Entry: bundle.Entry{Program: "llama-server"},
		Files: []bundle.File{
			{Path: "libfat.so", Parts: []bundle.Part{{Target: "gfx1100", Extents: bundle.Extents{{Offset: 8000, Size: 40_000}}}, {Target: "gfx1101", Extents: bundle.Extents{{Offset: 48_000, Size: 40_000}}}}},
			{Path: "k_gfx1100.co", Target: "gfx1100"},
			{Path: "k_gfx1101.co", Target: "gfx1101"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "llama-server"), 0o755); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if _, err := bundle.Pack(t.Context(), &packed, dir, m, bundle.PackOptions{Encoder: bundle.GoEncoder(zstd.SpeedFastest, 1<<20)}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "b.tar.zst")
	if err := os.WriteFile(file, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// unpackFor unpacks as an install for these targets does.
func unpackFor(t *testing.T, pack string, targets []gfx.Target) string {
	t.Helper()
	p, err := bundle.OpenFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	err = p.Extract(t.Context(), root, bundle.ExtractOptions{Select: bundle.ForTargets(targets), Projection: p.Manifest().ProjectionFor(targets)})
	if err == nil {
		err = p.WriteManifest(root, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestVerifyTargets: verify says which of the bundle's targets a folder has.
func TestVerifyTargets(t *testing.T) {
	pack := splitBundle(t)
	verify := func(path string) (string, error) {
		var out bytes.Buffer
		c := verifyCommand()
		c.SetArgs([]string{path})
		c.SetOut(&out)
		c.SetErr(&out)
		err := c.ExecuteContext(t.Context())
		return out.String(), err
	}
	for name, c := range map[string]struct{ path, want string }{
		"pack":      {pack, "llama-test v1 is whole: 4 files"},
		"whole":     {unpackFor(t, pack, nil), "llama-test v1 is whole: 4 files"},
		"gfx1100":   {unpackFor(t, pack, []gfx.Target{"gfx1100"}), "llama-test v1 is right for gfx1100, without gfx1101: 3 files"},
		"gfx1101":   {unpackFor(t, pack, []gfx.Target{"gfx1101"}), "llama-test v1 is right for gfx1101, without gfx1100: 3 files"},
		"no target": {unpackFor(t, pack, []gfx.Target{}), "llama-test v1 is right without what single GPU targets need: 2 files"},
	} {
		if out, err := verify(c.path); err != nil || !strings.HasPrefix(out, c.want) {
			t.Errorf("%s: %q, %v; want %q", name, out, err, c.want)
		}
	}
	dir := unpackFor(t, pack, []gfx.Target{"gfx1100"})
	f, err := os.OpenFile(filepath.Join(dir, "libfat.so"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{1}, 60_000); err != nil { // in gfx1101's hole
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := verify(dir); err == nil || !strings.Contains(err.Error(), "libfat.so: sha256") {
		t.Errorf("a byte in a hole: %q, %v", out, err)
	}
}
