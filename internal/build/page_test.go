package build

import (
	"archive/zip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/stage"
)

// The command embeds the page that was built, and none after a build without one.
func TestEmbedPage(t *testing.T) {
	s, d := newSession(t)
	p := &recipe.Page{Result: &stage.Result{Dir: t.TempDir()}}
	for name, text := range map[string]string{"index.html": "<html>", "_app/immutable/a.js": "a()"} {
		writeFile(t, filepath.Join(p.Files(), name), text)
	}
	packed := filepath.Join(d.root, filepath.FromSlash(pageFile))
	writeFile(t, filepath.Join(filepath.Dir(packed), "README"), "kept")
	if err := s.embedPage(d.root, p); err != nil {
		t.Fatal(err)
	}
	first, err := os.Stat(packed)
	if err != nil || first.Mode().Perm() != 0o644 {
		t.Fatalf("%v, %v", first, err)
	}
	z, err := zip.OpenReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
	}
	if err := z.Close(); err != nil || !slices.Equal(names, []string{"_app/immutable/a.js", "index.html"}) {
		t.Errorf("%v, %v", names, err)
	}
	// An unchanged page keeps its file, so that Go does not link the command again.
	if err := s.embedPage(d.root, p); err != nil {
		t.Fatal(err)
	}
	if second, err := os.Stat(packed); err != nil || !os.SameFile(first, second) || !second.ModTime().Equal(first.ModTime()) {
		t.Errorf("the file was written again: %v", err)
	}
	for range 2 { // also when there is none
		if err := s.embedPage(d.root, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(packed); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the page remains: %v", err)
	}
	left, err := os.ReadDir(filepath.Dir(packed))
	if err != nil || len(left) != 1 || left[0].Name() != "README" {
		t.Errorf("%v, %v", left, err)
	}
}

func TestPageHasALimit(t *testing.T) {
	s, d := newSession(t)
	p := &recipe.Page{Result: &stage.Result{Dir: t.TempDir()}}
	writeFile(t, filepath.Join(p.Files(), "index.html"), "<html>")
	writeFile(t, filepath.Join(p.Files(), "large.png"), strings.Repeat("x", maxPage)) // images are not compressed
	writeFile(t, filepath.Join(d.root, filepath.FromSlash(pageFile)), "old")
	if err := s.embedPage(d.root, p); !errors.Is(err, errPageSize) {
		t.Errorf("%v", err)
	}
}

// The module with a bundle has the page, too.
func TestModuleContainsPage(t *testing.T) {
	s, d := newSession(t)
	commitModule(t, d.root)
	writeFile(t, filepath.Join(d.root, filepath.FromSlash(pageFile)), "page")
	d.page = &recipe.Page{}
	if err := s.moduleInto(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]bool{"v0.1.0-plain": false, "v0.1.0": true} {
		z, err := zip.OpenReader(filepath.Join(d.dir, proxyDir, modulePath, "@v", version+".zip"))
		if err != nil {
			t.Fatal(err)
		}
		got := slices.ContainsFunc(z.File, func(f *zip.File) bool { return strings.HasSuffix(f.Name, "/"+pageFile) })
		if err := z.Close(); err != nil || got != want {
			t.Errorf("%s has the page: %t, %v", version, got, err)
		}
	}
}
