package licences_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/packaging/licences"
	"forge.lthn.ai/core/go-rocm/testing/filetree"
	"github.com/google/go-cmp/cmp"
)

const permission = `Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
`

func TestFromBundle(t *testing.T) {
	t.Parallel()
	dir := filetree.Write(t, map[string]string{
		"licenses/llama.cpp/LICENSE": "MIT License\n\nCopyright (c) 2023-2026 Some Authors\n\n" + permission,
		"licenses/libx1/copyright": "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n" +
			"Upstream-Name: x\n\nFiles: *\nCopyright: 1999 A. Person\n\t2001  B. Person\nLicense: GPL-2+ with X-exception\n\n" +
			"Files: debian/*\nCopyright: 2001 B. Person\nLicense: Expat\n the copyright of this text is no statement\n .\n",
		"licenses/old/copyright": "This package was debianised by D.\n\nIt was taken from somewhere.\n\n" +
			" * Copyright \xa9 1995 J\xfcrgen Person.\r\n\r\nThe copyright holder says nothing more.\n",
		"licenses/old/extra/NOTICE": "(c) 2002 Other\n",
		"licenses/README":           "not a component",
		"licenses/common/GPL-3":     "referred to by others",
	})
	got, err := licences.FromBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	type facts struct {
		Name     string
		Licences []string
		Holders  []string
		Texts    []string
	}
	var have []facts
	for _, c := range got {
		f := facts{Name: c.Name, Licences: c.Licences, Holders: c.Holders}
		for _, text := range c.Texts {
			f.Texts = append(f.Texts, text.Name)
		}
		have = append(have, f)
	}
	want := []facts{
		{"libx1", []string{"Expat", "GPL-2+ with X-exception"}, []string{"1999 A. Person", "2001 B. Person"}, []string{"copyright"}},
		{"llama.cpp", []string{"MIT"}, []string{"Copyright (c) 2023-2026 Some Authors"}, []string{"LICENSE"}},
		{"old", []string{}, []string{"Copyright © 1995 Jürgen Person.", "(c) 2002 Other"}, []string{"copyright", "NOTICE"}},
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("components (-want +got):\n%s", diff)
	}
}

func TestFromBundleRejectsMissingTexts(t *testing.T) {
	t.Parallel()
	bare := t.TempDir()
	empty := t.TempDir()
	if err := os.MkdirAll(filepath.Join(empty, "licenses", "libx1"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ dir, want string }{
		"no directory":     {bare, "bundle without licences"},
		"an empty package": {empty, "licences of libx1"},
		"files alone":      {filetree.Write(t, map[string]string{"licenses/README": "x"}), "bundle without licences"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := licences.FromBundle(tc.dir)
			if !errors.Is(err, licences.ErrNoLicence) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error about %q", err, tc.want)
			}
		})
	}
}

// The test builds a program with a dependency to get real build information.
func TestFromProgram(t *testing.T) {
	src := filetree.Write(t, map[string]string{
		"go.mod":         "module example.test/prog\n\ngo 1.26\n\nrequire example.test/Dep v1.2.3\n\nreplace example.test/Dep => ./dep\n",
		"main.go":        "package main\n\nimport \"example.test/Dep\"\n\nfunc main() { dep.Do() }\n",
		"dep/go.mod":     "module example.test/Dep\n\ngo 1.26\n",
		"dep/dep.go":     "package dep\n\nfunc Do() {}\n",
		"dep/LICENSE.md": "Copyright 2020 Dep Authors\n\n" + permission,
		"dep/license.go": "package dep\n",
	})
	program := filepath.Join(t.TempDir(), "prog")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	build.Dir = src
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	goroot := filetree.Write(t, map[string]string{"LICENSE": "Copyright 2009 The Go Authors.\n"})

	t.Chdir(src) // a replacement's path is relative to the module
	got, err := licences.FromProgram(program, t.TempDir(), goroot)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Name != "./dep" || got[1].Kind != licences.GoRuntime || got[1].Version == "" {
		t.Fatalf("got %+v", got)
	}
	if diff := cmp.Diff([]string{"MIT"}, got[0].Licences); diff != "" {
		t.Errorf("licences:\n%s", diff)
	}
	if len(got[0].Texts) != 1 || got[0].Holders[0] != "Copyright 2020 Dep Authors" {
		t.Errorf("got %+v", got[0])
	}
	if _, err := licences.FromProgram(program, t.TempDir(), t.TempDir()); !errors.Is(err, licences.ErrNoLicence) || !strings.Contains(err.Error(), "go env GOROOT") {
		t.Errorf("without Go's licence: %v", err)
	}
	if _, err := licences.FromProgram(filepath.Join(src, "main.go"), t.TempDir(), goroot); err == nil {
		t.Error("a file that is not a program was accepted")
	}
}

func FuzzFromBundle(f *testing.F) {
	f.Add([]byte("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: 2020 A\nLicense: MIT\n"))
	f.Add([]byte("Copyright (c) 2020 A\n\n" + permission))
	f.Add([]byte("\xff\xfe\r\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		dir := t.TempDir()
		at := filepath.Join(dir, "licenses", "x")
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, "copyright"), body, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := licences.FromBundle(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range [][]string{got[0].Licences, got[0].Holders} {
			for _, s := range list {
				if s == "" || strings.ContainsAny(s, "\r\n\t") || s != strings.Join(strings.Fields(s), " ") {
					t.Errorf("not a normalised line: %q", s)
				}
			}
		}
	})
}
