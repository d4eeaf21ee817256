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

// The second checkout has the working tree as it is, the first one's revision,
// and differs from it in the same files.
func TestCopyCheckout(t *testing.T) {
	root, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	s := &Session{Settings: &settings.Settings{Dist: "out", Cache: filepath.Join(root, "cache")}}
	git(t, root, "init", "--quiet")
	put(t, filepath.Join(root, "a"), "committed")
	put(t, filepath.Join(root, "gone"), "committed")
	put(t, filepath.Join(root, ".gitignore"), "ignored\n")
	git(t, root, "add", "--all")
	git(t, root, "commit", "--quiet", "-m", "first")
	put(t, filepath.Join(root, "a"), "changed")
	if err := errors.Join(os.Remove(filepath.Join(root, "gone")), os.Symlink("a", filepath.Join(root, "link"))); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(root, "staged"), "not committed")
	git(t, root, "add", "staged")
	put(t, filepath.Join(root, "new", "b"), "untracked")
	left := []string{"ignored/c", "out/go-rocm", "out.part/go-rocm", "out.old/go-rocm", "cache/stages/x"}
	for _, name := range left {
		put(t, filepath.Join(root, name), "of no source")
	}
	if err := s.copyCheckout(t.Context(), root, to); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "changed", "link": "changed", "staged": "not committed", "new/b": "untracked"} {
		if got := contentOf(t, filepath.Join(to, name)); got != want {
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
		files, err := s.tracked(t.Context(), dir)
		if want := []string{".gitignore", "a", "staged"}; err != nil || !slices.Equal(files, want) {
			t.Errorf("%s tracks %v, %v", dir, files, err)
		}
		files, err = s.uncommitted(t.Context(), dir)
		if want := []string{"a", "gone", "link", "new/b", "staged"}; err != nil || !slices.Equal(slices.Sorted(slices.Values(files)), want) {
			t.Errorf("%s differs in %v, %v", dir, files, err)
		}
	}
}

// The module has what git tracks and the bundle, and nothing that only lies in the
// checkout; a folder for deliverables leaves out no other of like name.
func TestModuleHasWhatIsTracked(t *testing.T) {
	s, d := session(t, "GOROCM_DIST=do")
	s.Settings.Published = filepath.Join(d.root, "served")
	sources(t, d.root)
	put(t, filepath.Join(d.root, "docs/a.md"), "text")
	git(t, d.root, "add", "docs")
	for _, name := range []string{"archive.asc", "keys/private.pem", "do/go-rocm", "served/apt/pool/x.deb"} {
		put(t, filepath.Join(d.root, name), "not to be given away")
	}
	put(t, filepath.Join(d.root, payloadDir, "llama-cpu.000"), "bundle")
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
			t.Errorf("%s holds %v, want %v", version, got, want)
		}
	}
}

// A signed release is of a commit; one that is not signed says that it is of none.
func TestSignedReleaseIsOfACommit(t *testing.T) {
	s, d := session(t, "GOROCM_SIGNING_KEY="+provenanceKey(t))
	sources(t, d.root)
	clean, err := s.revision(t.Context(), d.root)
	if want := git(t, d.root, "rev-parse", "HEAD"); err != nil || clean != want {
		t.Errorf("revision %s, %v; want %s", clean, err, want)
	}
	for name, change := range map[string]func(){
		"archive.asc": func() { put(t, filepath.Join(d.root, "archive.asc"), "a key") },
		"a.go":        func() { put(t, filepath.Join(d.root, "a.go"), "package b\n") },
	} {
		change()
		err := s.provenanceInto(t.Context(), d, stated(t))
		if !errors.Is(err, errUncommitted) || !strings.Contains(err.Error(), "\n  "+name) {
			t.Errorf("with %s: %v", name, err)
		}
		git(t, d.root, "clean", "--quiet", "--force", "archive.asc")
		git(t, d.root, "checkout", "--quiet", ".")
	}
	put(t, filepath.Join(d.root, "new.go"), "package a\n")
	s.Settings.SigningKey = ""
	if err := s.provenanceInto(t.Context(), d, stated(t)); err != nil {
		t.Fatal(err)
	}
	if stated := contentOf(t, filepath.Join(d.dir, "provenance.json")); strings.Contains(stated, "gitCommit") || strings.Contains(stated, clean) {
		t.Error("the provenance names a commit that is another")
	}
}
