package deb_test

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/packaging/deb"
	"forge.lthn.ai/core/go-rocm/packaging/manual"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"github.com/blakesmith/ar"
	"github.com/klauspost/compress/zstd"
	"github.com/spf13/cobra"
)

var epoch = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// buildProgram returns the path of a static program that links an external module, so
// that there is a licence to collect.
func buildProgram(t *testing.T) string {
	t.Helper()
	program, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "go-rocm")
	if err := os.WriteFile(out, program, 0o755); err != nil {
		t.Fatal(err)
	}
	return out
}

// compiled returns the program of testdata, which is compiled once.
var compiled = sync.OnceValues(func() (program []byte, err error) {
	dir, err := os.MkdirTemp("", "deb-program-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	out := filepath.Join(dir, "go-rocm")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s", "-o", out, "./testdata/program")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, b)
	}
	return os.ReadFile(out)
})

// goDirs returns the directories of Go and of its modules.
var goDirs = sync.OnceValues(func() (dirs [2]string, err error) {
	out, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE").Output()
	copy(dirs[:], strings.Split(string(out), "\n"))
	return dirs, err
})

// writeBundle writes a small bundle with the structure of a real one.
func writeBundle(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, f := range map[string]struct {
		body string
		mode os.FileMode
	}{
		"ld-linux-x86-64.so.2": {"loader", 0o755},
		"llama-server":         {"server", 0o755},
		"libllama.so.0":        {strings.Repeat("\x00", 1<<20) + "library", 0o644},
		"licenses/libc6/copyright": {
			"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: 1991 A. Person\n  1992 B. Person\nLicense: LGPL-2.1+\n on Debian systems see /usr/share/common-licenses/LGPL-2.1\n", 0o644,
		},
		"licenses/llama.cpp/LICENSE": {"MIT License\n\nCopyright (c) 2023 Some Authors\n\nPermission is granted.\n", 0o644},
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f.body), f.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, f.mode); err != nil {
			t.Fatal(err)
		}
	}
	target, err := gfx.Parse("gfx1100")
	if err != nil {
		t.Fatal(err)
	}
	m, err := bundle.Build(dir, bundle.Manifest{
		Name: "llama-hip", Variant: "hip", Flavour: bundle.FlavourHermetic, Version: "v0.5.0",
		Targets: []gfx.Target{target}, SourceDateEpoch: epoch.Unix(),
		Source: bundle.Source{Tag: "v0.5.0", Tree: strings.Repeat("ab", 20)},
		Entry:  bundle.Entry{Loader: "ld-linux-x86-64.so.2", Program: "llama-server"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := bundle.WriteManifest(dir, m); err != nil {
		t.Fatal(err)
	}
	return dir
}

func options(t *testing.T) deb.Options {
	t.Helper()
	return deb.Options{Version: "0.2.0", Epoch: epoch, OutDir: t.TempDir(), Maintainer: "A. Person <person@example.org>"}
}

func command(t *testing.T) deb.Command {
	t.Helper()
	pages := t.TempDir()
	root := &cobra.Command{Use: "go-rocm", Short: "language models"}
	root.AddCommand(&cobra.Command{Use: "serve MODEL", Short: "serve", Run: func(*cobra.Command, []string) {}})
	if err := manual.Write(pages, root, manual.Options{Version: "0.2.0", Date: epoch}); err != nil {
		t.Fatal(err)
	}
	dirs, err := goDirs()
	if err != nil {
		t.Fatal(err)
	}
	return deb.Command{
		Program: buildProgram(t), LlamaVersion: "v0.5.0", Manual: pages,
		ModuleCache: dirs[1], GoRoot: dirs[0],
	}
}

func buildCommand(t *testing.T, o deb.Options, c deb.Command) string {
	t.Helper()
	out, err := deb.BuildCommand(t.Context(), o, c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func buildBundle(t *testing.T, o deb.Options, dir string) string {
	t.Helper()
	out, err := deb.BuildBundle(t.Context(), o, dir)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// archive is a package unpacked without dpkg, to check the headers as they are.
type archive struct {
	control, data map[string]tar.Header
	text          map[string]string // of control and data files
}

func open(t *testing.T, path string) archive {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	a := archive{control: map[string]tar.Header{}, data: map[string]tar.Header{}, text: map[string]string{}}
	r := ar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return a
		}
		if err != nil {
			t.Fatal(err)
		}
		switch name := strings.TrimSuffix(h.Name, "/"); name {
		case "control.tar.gz":
			z, err := gzip.NewReader(r)
			if err != nil {
				t.Fatal(err)
			}
			a.read(t, z, a.control)
		case "data.tar.zst":
			z, err := zstd.NewReader(r)
			if err != nil {
				t.Fatal(err)
			}
			a.read(t, z, a.data)
			z.Close()
		}
	}
}

func (a archive) read(t *testing.T, r io.Reader, into map[string]tar.Header) {
	t.Helper()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(h.Name, ".")
		into[name] = *h
		a.text[name] = string(b)
	}
}

func gunzip(t *testing.T, s string) string {
	t.Helper()
	z, err := gzip.NewReader(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
