//go:build unix

package bundle_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// A bundle made under a strict umask is equal to any other.
func TestManifestIgnoresUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir := t.TempDir()
	program := filepath.Join(dir, "llama-server")
	if err := errors.Join(os.WriteFile(program, []byte("x"), 0o600), os.Chmod(program, 0o755)); err != nil {
		t.Fatal(err)
	}
	m, err := bundle.Build(dir, bundle.Manifest{
		Schema: bundle.Schema, Name: "llama-cpu", Variant: "cpu", Flavour: bundle.FlavourSystem, Version: "v0.5.0",
		Entry: bundle.Entry{Program: "llama-server"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := bundle.WriteManifest(dir, m); err != nil {
		t.Fatal(err)
	}
	if err := bundle.Verify(t.Context(), dir, m); err != nil {
		t.Error(err)
	}
}
