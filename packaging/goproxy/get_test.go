package goproxy_test

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/modfile"

	payload "forge.lthn.ai/core/go-rocm/embed"
	"forge.lthn.ai/core/go-rocm/packaging/goproxy"
	"forge.lthn.ai/core/go-rocm/packaging/modtest"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
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

// A program that uses package rocm gets two other modules with it, and may be compiled
// by the oldest Go that compiles the package. The build side (a container engine, a
// package builder, git, telemetry) is in modules of its own.
func TestGoGetRequiresTheRunSideAlone(t *testing.T) {
	t.Parallel()
	const path = modtest.Path
	proxy := filepath.Join(t.TempDir(), "proxy")
	of := goproxy.Version{Path: path, Version: "v0.1.0", Time: made}
	if err := goproxy.Add(t.Context(), proxy, of, pack(t, of, ownModule(t, false))); err != nil {
		t.Fatal(err)
	}
	for _, goLine := range []string{"1.21", "1.25.0"} {
		t.Run(goLine, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module example.test/program\n\ngo "+goLine+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := goCommand(t, dir, proxy, "get", path); err != nil {
				t.Fatalf("go get: %v\n%s", err, out)
			}
			mod, err := modfile.Parse("go.mod", []byte(read(t, dir, "go.mod")), nil)
			if err != nil {
				t.Fatal(err)
			}
			var required []string
			for _, r := range mod.Require {
				required = append(required, r.Mod.Path)
			}
			slices.Sort(required)
			if diff := cmp.Diff([]string{path, "github.com/klauspost/compress", "golang.org/x/sys"}, required); diff != "" {
				t.Errorf("required modules (-want +got):\n%s", diff)
			}
			if mod.Go.Version != "1.25.0" || mod.Toolchain != nil {
				t.Errorf("go %s, toolchain %v; want go 1.25.0 and no toolchain", mod.Go.Version, mod.Toolchain)
			}
			all, err := goCommand(t, dir, proxy, "mod", "graph")
			if err != nil {
				t.Fatalf("go mod graph: %v\n%s", err, all)
			}
			for _, build := range []string{"github.com/docker/", "github.com/goreleaser/", "github.com/go-git/", "github.com/magefile/", "go.opentelemetry.io/", path + "/"} {
				if strings.Contains(all, build) {
					t.Errorf("the module graph has %s*:\n%s", build, all)
				}
			}
		})
	}
}

// The files of the build side are not in the module of package rocm.
func TestPublishedModuleHasNoBuildSide(t *testing.T) {
	t.Parallel()
	of := goproxy.Version{Path: modtest.Path, Version: "v0.1.0", Time: made}
	z, err := zip.OpenReader(filepath.Join(pack(t, of, ownModule(t, false)), "v0.1.0.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = z.Close() }()
	dirs := map[string]bool{}
	for _, f := range z.File {
		parts := strings.Split(strings.TrimPrefix(f.Name, of.String()+"/"), "/")
		dirs[strings.Join(parts[:min(2, len(parts)-1)], "/")] = true
	}
	for _, dir := range []string{"docker", "docker/engine", "packaging", "packaging/deb", "internal/build", "magefiles", "testing/e2e", "testing/install", "testing/registry"} {
		if dirs[dir] {
			t.Errorf("%s is in the archive", dir)
		}
	}
	for _, dir := range []string{"", "pkg/llamaapi", "runtime/supervise", "cmd/go-rocm", "testing/fakebundle"} {
		if !dirs[dir] {
			t.Errorf("%s is not in the archive", dir)
		}
	}
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

// adapterProgram imports what the README of contrib/goinference tells to import.
const adapterProgram = `package main

import (
	"fmt"

	"forge.lthn.ai/core/go-inference"
	_ "forge.lthn.ai/core/go-rocm/contrib/goinference"
)

func main() { fmt.Println(inference.List()) }
`

// The adapters for go-inference can be downloaded with the main module. Stand-ins take
// the place of go-inference, which no proxy of this test has.
func TestGoGetOfTheAdapters(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles modules; `mage test` runs this test")
	}
	t.Parallel()
	const adapter = "contrib/goinference"
	proxy, all := filepath.Join(t.TempDir(), "proxy"), ownModule(t, false)
	for _, m := range []struct{ path, version, dir string }{
		{modtest.Path, "v0.1.0-plain", ""},
		{modtest.Path + "/" + adapter, "v0.1.0", adapter},
		{modtest.Path + "/" + adapter + "/result", "v0.1.0", adapter + "/result"},
		{"forge.lthn.ai/core/go-inference", "v0.1.7", adapter + "/standin"},
		{"dappco.re/go", "v0.12.0", adapter + "/result/standin/core"},
		{"dappco.re/go/inference", "v0.14.0", adapter + "/result/standin/inference"},
	} {
		files := all
		if m.dir != "" {
			files = goproxy.Subdirectory(all, m.dir)
		}
		of := goproxy.Version{Path: m.path, Version: m.version, Time: made}
		if err := goproxy.Add(t.Context(), proxy, of, pack(t, of, files)); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.test/program\n\ngo 1.25.0\n", "main.go": adapterProgram} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{adapter, adapter + "/result"} {
		if out, err := goCommand(t, dir, proxy, "get", modtest.Path+"/"+path); err != nil {
			t.Fatalf("go get %s: %v\n%s", path, err, out)
		}
	}
	if out, err := goCommand(t, dir, proxy, "run", "."); err != nil || out != "[rocm]\n" {
		t.Errorf("the program printed %q, %v; want the name of the backend", out, err)
	}
	if out, err := goCommand(t, dir, proxy, "build", modtest.Path+"/"+adapter+"/result"); err != nil {
		t.Errorf("go build: %v\n%s", err, out)
	}
}
