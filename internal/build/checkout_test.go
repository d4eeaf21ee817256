package build

import (
	"archive/zip"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/internal/settings"
)

// The copy has the working tree and the commit of the original, and differs from the
// commit in the same files.
func TestCopyCheckoutKeepsTreeAndCommit(t *testing.T) {
	root, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	s := &Session{Settings: &settings.Settings{Dist: "out", Cache: filepath.Join(root, "cache")}}
	git(t, root, "init", "--quiet")
	writeFile(t, filepath.Join(root, "a"), "committed")
	writeFile(t, filepath.Join(root, "gone"), "committed")
	writeFile(t, filepath.Join(root, ".gitignore"), "ignored\n")
	git(t, root, "add", "--all")
	git(t, root, "commit", "--quiet", "-m", "first")
	writeFile(t, filepath.Join(root, "a"), "changed")
	if err := errors.Join(os.Remove(filepath.Join(root, "gone")), os.Symlink("a", filepath.Join(root, "link"))); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(root, "staged"), "not committed")
	git(t, root, "add", "staged")
	writeFile(t, filepath.Join(root, "new", "b"), "untracked")
	left := []string{"ignored/c", "out/go-rocm", "out.part/go-rocm", "out.old/go-rocm", "cache/stages/x"}
	for _, name := range left {
		writeFile(t, filepath.Join(root, name), "not a source")
	}
	if err := s.copyCheckout(t.Context(), root, to); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "changed", "link": "changed", "staged": "not committed", "new/b": "untracked"} {
		if got := readFile(t, filepath.Join(to, name)); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, name := range append(left, "gone") {
		if exists(filepath.Join(to, name)) {
			t.Errorf("%s was copied", name)
		}
	}
	if a, b := git(t, root, "rev-parse", "HEAD"), git(t, to, "rev-parse", "HEAD"); a != b {
		t.Errorf("revisions %s and %s", a, b)
	}
	for _, dir := range []string{root, to} {
		files, err := s.trackedFiles(t.Context(), dir)
		if want := []string{".gitignore", "a", "staged"}; err != nil || !slices.Equal(files, want) {
			t.Errorf("%s tracks %v, %v", dir, files, err)
		}
		files, err = s.uncommittedFiles(t.Context(), dir)
		if want := []string{"a", "gone", "link", "new/b", "staged"}; err != nil || !slices.Equal(slices.Sorted(slices.Values(files)), want) {
			t.Errorf("%s differs in %v, %v", dir, files, err)
		}
	}
}

// The module contains the tracked files and the bundle, and no untracked file. A dist
// directory named do does not exclude docs.
func TestModuleContainsTrackedFilesOnly(t *testing.T) {
	s, d := newSession(t, "GOROCM_DIST=do")
	s.Settings.Published = filepath.Join(d.root, "served")
	commitModule(t, d.root)
	writeFile(t, filepath.Join(d.root, "docs/a.md"), "text")
	git(t, d.root, "add", "docs")
	for _, name := range []string{"archive.asc", "keys/private.pem", "do/go-rocm", "served/apt/pool/x.deb"} {
		writeFile(t, filepath.Join(d.root, name), "private")
	}
	writeFile(t, filepath.Join(d.root, payloadDir, "llama-cpu.000"), "bundle")
	if err := s.moduleInto(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string][]string{
		"v0.1.0-plain": {"a.go", "docs/a.md", "go.mod"},
		"v0.1.0":       {"a.go", "docs/a.md", payloadDir + "/llama-cpu.000", "go.mod"},
	} {
		r, err := zip.OpenReader(filepath.Join(d.dir, proxyDir, modulePath, "@v", version+".zip"))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range r.File {
			got = append(got, strings.TrimPrefix(f.Name, modulePath+"@"+version+"/"))
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s contains %v, want %v", version, got, want)
		}
	}
}

// A signed release must be built from a commit. The provenance of an unsigned one
// names no commit if the checkout differs.
func TestSignedReleaseNeedsACleanCheckout(t *testing.T) {
	s, d := newSession(t, "GOROCM_SIGNING_KEY="+provenanceKey(t))
	commitModule(t, d.root)
	clean, err := s.revision(t.Context(), d.root)
	if want := git(t, d.root, "rev-parse", "HEAD"); err != nil || clean != want {
		t.Errorf("revision %s, %v; want %s", clean, err, want)
	}
	for name, change := range map[string]func(){
		"archive.asc": func() { writeFile(t, filepath.Join(d.root, "archive.asc"), "a key") },
		"a.go":        func() { writeFile(t, filepath.Join(d.root, "a.go"), "package b\n") },
	} {
		change()
		err := s.provenanceInto(t.Context(), d, material(t))
		if !errors.Is(err, errUncommitted) || !strings.Contains(err.Error(), "\n  "+name) {
			t.Errorf("with %s: %v", name, err)
		}
		git(t, d.root, "clean", "--quiet", "--force", "archive.asc")
		git(t, d.root, "checkout", "--quiet", ".")
	}
	writeFile(t, filepath.Join(d.root, "new.go"), "package a\n")
	s.Settings.SigningKey = ""
	if err := s.provenanceInto(t.Context(), d, material(t)); err != nil {
		t.Fatal(err)
	}
	if stated := readFile(t, filepath.Join(d.dir, "provenance.json")); strings.Contains(stated, "gitCommit") || strings.Contains(stated, clean) {
		t.Error("the provenance names a commit that differs from the checkout")
	}
}
