package build

import (
	"archive/zip"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/modfile"

	"forge.lthn.ai/core/go-rocm/internal/build/settings"
)

// The copy has the working tree and the commit of the original, and differs from the
// commit in the same files.
func TestCopyCheckoutKeepsTreeAndCommit(t *testing.T) {
	root, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	s := &Session{Settings: &settings.Settings{Dist: "out", Cache: filepath.Join(root, "cache")}}
	runGit(t, root, "init", "--quiet")
	writeFile(t, filepath.Join(root, "a"), "committed")
	writeFile(t, filepath.Join(root, "gone"), "committed")
	writeFile(t, filepath.Join(root, ".gitignore"), "ignored\n")
	runGit(t, root, "add", "--all")
	runGit(t, root, "commit", "--quiet", "-m", "first")
	writeFile(t, filepath.Join(root, "a"), "changed")
	if err := errors.Join(os.Remove(filepath.Join(root, "gone")), os.Symlink("a", filepath.Join(root, "link"))); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(root, "staged"), "not committed")
	runGit(t, root, "add", "staged")
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
	if a, b := runGit(t, root, "rev-parse", "HEAD"), runGit(t, to, "rev-parse", "HEAD"); a != b {
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
	runGit(t, d.root, "add", "docs")
	for _, name := range []string{"archive.asc", "keys/private.pem", "do/go-rocm", "served/apt/pool/x.deb"} {
		writeFile(t, filepath.Join(d.root, name), "private")
	}
	writeFile(t, filepath.Join(d.root, payloadDir, "llama-cpu.tar.zst.000"), "bundle")
	writeFile(t, filepath.Join(d.root, payloadDir, "llama-notes"), "private")
	if err := s.moduleInto(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string][]string{
		"v0.1.0-plain": {"a.go", "docs/a.md", "go.mod"},
		"v0.1.0":       {"a.go", "docs/a.md", payloadDir + "/llama-cpu.tar.zst.000", "go.mod"},
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
	if want := runGit(t, d.root, "rev-parse", "HEAD"); err != nil || clean != want {
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
		runGit(t, d.root, "clean", "--quiet", "--force", "archive.asc")
		runGit(t, d.root, "checkout", "--quiet", ".")
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

// Every error of git contains the message of git, which names the remedy.
func TestGitErrorsContainItsMessage(t *testing.T) {
	s, d := newSession(t)
	s.Settings.SourceDate = time.Time{}
	commitModule(t, d.root)
	t.Setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1") // git's own tests use it
	for name, call := range map[string]func() error{
		"ls-files": func() error { _, err := s.trackedFiles(t.Context(), d.root); return err },
		"status":   func() error { _, err := s.uncommittedFiles(t.Context(), d.root); return err },
		"revision": func() error { _, err := s.revision(t.Context(), d.root); return err },
		"log":      func() error { _, err := s.sourceDate(t.Context(), d.root); return err },
		"clone":    func() error { return s.copyCheckout(t.Context(), d.root, filepath.Join(t.TempDir(), "copy")) },
		"checkGit": func() error { return s.checkGit(t.Context(), d.root) },
		"index": func() error {
			_, err := git(t.Context(), d.root, nil, "update-index", "-z", "--index-info")
			return err
		},
		"index list": func() error { _, err := git(t.Context(), d.root, nil, "ls-files", "-z", "--stage"); return err },
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), "dubious ownership") || !strings.Contains(err.Error(), "safe.directory") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A release checks its changelog and everything that it reads from git before it builds,
// with or without a key.
func TestReleaseChecksGitAndChangelogFirst(t *testing.T) {
	s, root := inCheckout(t)
	if err := s.release(t.Context()); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("a changelog entry older than the one below it: %v", err)
	}
	s.Epoch = time.Now()
	if err := s.release(t.Context()); err == nil || !strings.Contains(err.Error(), "not a git repository") {
		t.Errorf("outside a repository: %v", err)
	}
	runGit(t, root, "init", "--quiet")
	if err := s.release(t.Context()); err == nil || !strings.Contains(err.Error(), "does not have any commits") {
		t.Errorf("without a commit: %v", err)
	}
}

// Without HOME mage writes nothing to the checkout.
func TestMageWithoutHomeLeavesTheCheckoutClean(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles programs; `mage test` runs this test")
	}
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	dir, tmp := t.TempDir(), t.TempDir()
	cache, err := goEnv(t.Context(), "GOCACHE")
	if err != nil {
		t.Fatal(err)
	}
	modules, err := goEnv(t.Context(), "GOMODCACHE")
	if err != nil {
		t.Fatal(err)
	}
	// A module that requires mage alone, with the version of the build.
	targets, err := modfile.Parse("go.mod", []byte(readFile(t, filepath.Join(root, "magefiles", "go.mod"))), nil)
	if err != nil {
		t.Fatal(err)
	}
	mod := "module example.test/checkout\n\ngo 1.26\n"
	for _, r := range targets.Require {
		if strings.HasPrefix(r.Mod.Path, "github.com/magefile/") {
			mod += "\nrequire " + r.Mod.Path + " " + r.Mod.Version + "\n"
		}
	}
	writeFile(t, filepath.Join(dir, "go.mod"), mod)
	writeFile(t, filepath.Join(dir, "go.sum"), readFile(t, filepath.Join(root, "magefiles", "go.sum")))
	writeFile(t, filepath.Join(dir, "mage.go"), readFile(t, filepath.Join(root, "mage.go")))
	writeFile(t, filepath.Join(dir, "magefiles", "magefile.go"), "//go:build mage\n\npackage main\n\nfunc Nothing() {}\n")
	cmd := exec.CommandContext(t.Context(), "go", "run", "mage.go", "nothing")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME=", "MAGEFILE_CACHE=", "GOCACHE="+cache, "GOMODCACHE="+modules, "GOFLAGS=-mod=mod", "TMPDIR="+tmp)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if exists(filepath.Join(dir, ".magefile")) {
		t.Error(".magefile was written to the checkout")
	}
	if left, err := filepath.Glob(filepath.Join(tmp, "magefile-*")); err != nil || len(left) > 0 {
		t.Errorf("remains %v, %v", left, err)
	}
}
