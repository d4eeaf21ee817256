//go:build linux && amd64

package locate_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"

	payload "forge.lthn.ai/core/go-rocm/embed"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

// server is a llama-server that prints its flags.
const server = `#!/bin/sh
echo "-m,    --model FNAME     the model"
echo "--embeddings             embeddings only"
`

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
}

// bundleDir writes the directory of a bundle for two targets, of which one has a
// hipBLASLt kernel.
func bundleDir(t *testing.T, server string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, map[string]string{"llama-server": server, "k_gfx1100.co": "a", "k_gfx1101.co": "b", "hipblaslt/k_gfx1100.dat": "c"})
	m, err := bundle.Build(dir, bundle.Manifest{
		Name: "llama-fake", Variant: "hip", Flavour: bundle.FlavourSystem, Version: "v0", Entry: bundle.Entry{Program: "llama-server"},
		Targets: []gfx.Target{gfx.GFX1100, gfx.GFX1101},
		Files: []bundle.File{
			{Path: "k_gfx1100.co", Target: gfx.GFX1100},
			{Path: "k_gfx1101.co", Target: gfx.GFX1101},
			{Path: "hipblaslt/k_gfx1100.dat", Target: gfx.GFX1100},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := bundle.WriteManifest(dir, m); err != nil {
		t.Fatal(err)
	}
	return dir
}

// packed packs bundleDir and returns the file.
func packed(t *testing.T, server string) string {
	t.Helper()
	dir := bundleDir(t, server)
	m, err := bundle.ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := bundle.Pack(t.Context(), &out, dir, m, bundle.PackOptions{Encoder: bundle.GoEncoder(zstd.SpeedFastest, 1<<20)}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "llama.tar.zst")
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// find finds the bundle at path and closes it with the test.
func find(t *testing.T, path string) *locate.Bundle {
	t.Helper()
	b, err := locate.Find(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// The path comes before the environment, and both before what is installed.
func TestFindOrder(t *testing.T) {
	dir, file := bundleDir(t, server), packed(t, server)
	bare := t.TempDir()
	write(t, bare, map[string]string{"llama-server": server})
	t.Chdir(filepath.Dir(file))
	for _, c := range []struct {
		path, env string
		at        string // the bundle's Path
		unpacked  bool
		manifest  bool
	}{
		{dir, file, dir, true, true},
		{file, dir, file, false, true},
		{filepath.Base(file), dir, file, false, true},
		{"", dir, dir, true, true},
		{"", bare, bare, true, false},
	} {
		t.Setenv(locate.EnvBundle, c.env)
		b := find(t, c.path)
		if b.Origin != locate.OriginGiven || b.Path != c.at || b.Unpacked() != c.unpacked || (b.Manifest != nil) != c.manifest {
			t.Errorf("path %q, environment %q: %+v", c.path, c.env, b)
		}
		if size := b.UnpackedSize(); (size == 0) != c.unpacked {
			t.Errorf("path %q: %d bytes to unpack", c.path, size)
		}
	}
}

// Without a path the bundle is this machine's: the installed one, or the embedded one.
func TestFindWithoutAPath(t *testing.T) {
	t.Setenv(locate.EnvBundle, "")
	_, installedErr := os.Stat(filepath.Join(locate.InstalledDir, bundle.ManifestName))
	embedded, err := payload.Variants()
	if err != nil {
		t.Fatal(err)
	}
	b, err := locate.Find("")
	if err == nil {
		defer func() { _ = b.Close() }()
	}
	switch {
	case installedErr == nil:
		if err != nil || b.Origin != locate.OriginInstalled || b.Dir != locate.InstalledDir {
			t.Errorf("%+v, %v; want the installed bundle", b, err)
		}
	case len(embedded) > 0:
		if err != nil || b.Origin != locate.OriginEmbedded || b.Path != "" || b.Unpacked() {
			t.Errorf("%+v, %v; want the embedded bundle", b, err)
		}
	default:
		if !errors.Is(err, locate.ErrNoBundle) || !errors.Is(err, payload.ErrNotEmbedded) || !strings.Contains(err.Error(), locate.EnvBundle) {
			t.Errorf("%v; want ErrNoBundle and the remedy", err)
		}
	}
}

func TestFindErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"noise.tar.zst": "no pack", "empty/readme": "", "module/libggml-hip.so": "no ELF", "module/llama-server": ""})
	damaged := bundleDir(t, server)
	write(t, damaged, map[string]string{bundle.ManifestName: "{"})
	for path, want := range map[string]struct {
		is   error
		says string
	}{
		filepath.Join(dir, "absent"):        {locate.ErrNoBundle, locate.EnvBundle},
		filepath.Join(dir, "empty"):         {locate.ErrNoBundle, "llama-server"},
		filepath.Join(dir, "noise.tar.zst"): {nil, "noise.tar.zst"},
		filepath.Join(dir, "module"):        {nil, "libggml-hip.so"},
		damaged:                             {bundle.ErrManifest, damaged},
	} {
		b, err := locate.Find(path)
		if b != nil || err == nil || !strings.Contains(err.Error(), want.says) || want.is != nil && !errors.Is(err, want.is) || errors.Is(err, locate.ErrNoBundle) != errors.Is(want.is, locate.ErrNoBundle) {
			t.Errorf("%s: %v; want %v that says %q", path, err, want.is, want.says)
		}
	}
}

// Whoever owns a directory: what is in the manifest's place is neither read without
// end nor waited for.
func TestFindReadsNoEndlessManifest(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"endless": func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40)) },
		"FIFO":    func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		dir := t.TempDir()
		if err := put(filepath.Join(dir, bundle.ManifestName)); err != nil {
			t.Fatal(err)
		}
		if _, err := locate.Find(dir); !errors.Is(err, bundle.ErrManifest) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The targets of the user's own build are those of its GPU module that have kernels.
func TestTargetsOfABuildWithoutManifest(t *testing.T) {
	module := elfgen.Spec{Sections: []elfgen.Section{elfgen.FatBinary(elfgen.Bundle(
		elfgen.Entry{ID: "host-x86_64-unknown-linux-gnu-"},
		elfgen.Entry{ID: "hipv4-amdgcn-amd-amdhsa--gfx1100", Code: elfgen.CodeObject(0x41, []string{"k"}, 10)},
		elfgen.Entry{ID: "hipv4-amdgcn-amd-amdhsa--gfx1101", Code: elfgen.CodeObject(0x46, nil, 10)},
	))}}
	dir := t.TempDir()
	write(t, dir, map[string]string{"llama-server": server})
	if got := find(t, dir).Targets(); got != nil {
		t.Errorf("without a module: %v", got)
	}
	write(t, dir, map[string]string{"libggml-hip.so": string(module.Bytes())})
	b := find(t, dir)
	if got := b.Targets(); !slices.Equal(got, []gfx.Target{gfx.GFX1100}) || b.HIPBLASLtTargets() != nil {
		t.Errorf("targets %v, for hipBLASLt %v", got, b.HIPBLASLtTargets())
	}
}

func TestTargetsOfABundle(t *testing.T) {
	both := []gfx.Target{gfx.GFX1100, gfx.GFX1101}
	dir := bundleDir(t, server)
	for _, path := range []string{dir, packed(t, server)} {
		b := find(t, path)
		if !slices.Equal(b.Targets(), both) || !slices.Equal(b.HIPBLASLtTargets(), both[:1]) {
			t.Errorf("%s: targets %v, for hipBLASLt %v", path, b.Targets(), b.HIPBLASLtTargets())
		}
	}
	if err := os.Remove(filepath.Join(dir, "k_gfx1101.co")); err != nil {
		t.Fatal(err)
	}
	if got := find(t, dir).Targets(); !slices.Equal(got, both[:1]) {
		t.Errorf("of a directory with the files of one: %v", got)
	}
}

func TestVerify(t *testing.T) {
	bare := t.TempDir()
	write(t, bare, map[string]string{"llama-server": server})
	if err := find(t, bare).Verify(t.Context()); !errors.Is(err, locate.ErrNoManifest) {
		t.Errorf("without a manifest: %v", err)
	}
	dir := bundleDir(t, server)
	for _, path := range []string{dir, packed(t, server)} {
		if err := find(t, path).Verify(t.Context()); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "k_gfx1101.co")); err != nil {
		t.Fatal(err)
	}
	if err := find(t, dir).Verify(t.Context()); err != nil {
		t.Errorf("a directory with the files of one target: %v", err)
	}
	write(t, dir, map[string]string{"llama-server": server + "true\n"})
	var differs *bundle.VerifyError
	if err := find(t, dir).Verify(t.Context()); !errors.As(err, &differs) {
		t.Errorf("a changed program: %v; want a VerifyError", err)
	}
}
