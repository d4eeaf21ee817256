package goproxy_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	payload "forge.lthn.ai/core/go-rocm/embed"
	"forge.lthn.ai/core/go-rocm/packaging/goproxy"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/testing/modtest"
)

const program = `package main

import (
	"fmt"

	payload "forge.lthn.ai/core/go-rocm/embed"
)

func main() {
	r, err := payload.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Manifest().Name, r.Manifest().Version, len(r.Manifest().Files))
}
`

// ownModule returns the files of this module, optionally with a small bundle.
func ownModule(t *testing.T, withBundle bool) []goproxy.File {
	t.Helper()
	files := modtest.Files(t)
	if !withBundle {
		return files
	}
	for _, part := range smallParts(t) {
		files = append(files, goproxy.File{Name: "embed/payload/" + filepath.Base(part), From: part})
	}
	return files
}

// smallParts packs a bundle of one file and splits it into several parts.
func smallParts(t *testing.T) []string {
	t.Helper()
	dir, parts := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "llama-server"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := bundle.Build(dir, bundle.Manifest{
		Name: "llama-cpu", Variant: "cpu", Flavour: bundle.FlavourSystem, Version: "v0.5.0", SourceDateEpoch: made.Unix(),
		Source: bundle.Source{Tag: "v0.5.0", Tree: strings.Repeat("ab", 20)}, Entry: bundle.Entry{Program: "llama-server"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := bundle.WriteManifest(dir, m); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if _, err := bundle.Pack(t.Context(), &packed, dir, m, bundle.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := payload.WriteParts(parts, "cpu", &packed, 512); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(parts, "llama-cpu.*"))
	if err != nil || len(found) < 2 {
		t.Fatalf("parts: %v, %v", found, err)
	}
	return found
}

// Another module can get this one from the directory alone. The newest version is
// the one with the bundle.
func TestGoGetFromTheProxy(t *testing.T) {
	if testing.Short() {
		t.Skip("it downloads and compiles modules; `mage test` runs this test")
	}
	t.Parallel()
	const path = modtest.Path
	proxy := filepath.Join(t.TempDir(), "proxy")
	for v, withBundle := range map[string]bool{"v0.1.0": true, "v0.1.0-plain": false} {
		of := goproxy.Version{Path: path, Version: v, Time: made}
		if err := goproxy.Add(t.Context(), proxy, of, pack(t, of, ownModule(t, withBundle))); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.test/program\n\ngo 1.26\n", "main.go": program} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct{ version, want string }{
		{"latest", "llama-cpu v0.5.0 1\n"},
		{"v0.1.0-plain", "no bundle is built in; run mage build, install the go-rocm-llama-hip package, or set GOROCM_BUNDLE\n"},
		{"v0.1.0", "llama-cpu v0.5.0 1\n"},
	} {
		if out, err := goCommand(t, dir, proxy, "get", path+"/embed@"+tc.version); err != nil {
			t.Fatalf("go get %s: %v\n%s", tc.version, err, out)
		}
		if out, err := goCommand(t, dir, proxy, "run", "."); err != nil || out != tc.want {
			t.Errorf("%s: the program printed %q, %v; want %q", tc.version, out, err, tc.want)
		}
	}
	// The go command verifies the archive by the recorded checksum.
	archive := filepath.Join(proxy, path, "@v/v0.1.0.zip")
	other := pack(t, goproxy.Version{Path: path, Version: "v0.1.0", Time: made}, ownModule(t, false))
	if err := os.Remove(archive); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(other, "v0.1.0.zip"), archive); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "modcache")); err != nil {
		t.Fatal(err)
	}
	if out, err := goCommand(t, dir, proxy, "run", "."); err == nil || !strings.Contains(out, "checksum mismatch") {
		t.Errorf("a changed archive: %v\n%s", err, out)
	}
}
