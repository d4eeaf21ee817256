//go:build linux && amd64

package rocm_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/runtime/extract"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// packSelf packs this test binary as a bundle's llama-server.
func packSelf(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "llama-server"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := bundle.Build(dir, bundle.Manifest{
		Name: "llama-fake", Variant: "cpu", Flavour: bundle.FlavourSystem, Version: "v0", Entry: bundle.Entry{Program: "llama-server"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if _, err := bundle.Pack(t.Context(), &packed, dir, m, bundle.PackOptions{Encoder: bundle.GoEncoder(zstd.SpeedFastest, 1<<20)}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "fake.tar.zst")
	if err := os.WriteFile(file, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestServerHoldsItsBundle: while a model is loaded nothing removes the bundle
// that its server runs from; afterwards it can go.
func TestServerHoldsItsBundle(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{})
	t.Setenv(locate.EnvBundle, packSelf(t))
	m, err := (&rocm.Backend{}).Load(t.Context(), model, rocm.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	dir := m.Server().BundleDir
	prune := func(want int) {
		t.Helper()
		removed, err := extract.Prune(t.Context(), extract.PruneOptions{})
		if err != nil || len(removed) != want {
			t.Errorf("removed %+v, %v; want %d", removed, err, want)
		}
	}
	prune(0)
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	prune(1)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s: %v", dir, err)
	}
}
