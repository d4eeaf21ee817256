package recipe

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/stage"
)

// upstream creates a small git repository with everything that can change a tree hash: an
// executable, a link, carriage returns, an ignored file.
func upstream(t *testing.T) (dir string, lock Lock) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "upstream")
	files := map[string]string{
		"CMakeLists.txt": "option(A \"a\" ON)\n", "dos.txt": "a\r\nb\r\n", ".gitignore": "*.log\n", "kept.log": "x", "sub/run.sh": "#!/bin/sh\n",
	}
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(filepath.Join(dir, "sub/run.sh"), 0o755), os.Symlink("sub/run.sh", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	run(t, dir, "init", "--quiet")
	run(t, dir, "add", "--all", "--force")
	run(t, dir, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "release")
	run(t, dir, "tag", "v1.0.0")
	lock = Lock{Tag: "v1.0.0", URL: "file://" + dir, Tree: run(t, dir, "rev-parse", "HEAD^{tree}"), Epoch: 1}
	return dir, lock
}

func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "core.autocrlf=false"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// tarball packs a working tree below one top directory, like hosting sites.
func tarball(t *testing.T, dir string, compressed bool) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = nopCloser{&b}
	if compressed {
		w = gzip.NewWriter(&b)
	}
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || strings.Contains(p, "/.git/") || e.Name() == ".git" {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		info, err := e.Info()
		if err != nil {
			return err
		}
		link := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			link, _ = os.Readlink(p)
		}
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		h.Name = filepath.Join("llama.cpp-1.0.0", rel)
		if err := tw.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
			return err
		}
		content, err := os.ReadFile(p)
		if err == nil {
			_, err = tw.Write(content)
		}
		return err
	})
	if err := errors.Join(err, tw.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "source.tar")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func cache(t *testing.T) *stage.Cache {
	t.Helper()
	c, err := stage.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Every way of transport results in the same tree with the same digest.
func TestEveryWayGivesTheSameTree(t *testing.T) {
	dir, lock := upstream(t)
	bundle := filepath.Join(t.TempDir(), "source.bundle")
	run(t, dir, "bundle", "create", "--quiet", bundle, "HEAD", "v1.0.0")

	direct, err := Source(t.Context(), cache(t), lock, "", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.Readlink(filepath.Join(direct.Dir, "link")); err != nil || got != "sub/run.sh" {
		t.Errorf("link: %q, %v", got, err)
	}
	for name, path := range map[string]string{
		"repository": dir, "bundle": bundle, "tarball": tarball(t, dir, false), "compressed tarball": tarball(t, dir, true),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Source(t.Context(), cache(t), lock, path, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if got.Output != direct.Output {
				t.Error("the files differ from those of the direct way")
			}
		})
	}
}

// git sets variables for its hooks that describe the calling repository. They must not direct the
// source's own git to that repository's index and objects.
func TestSourceInAGitHook(t *testing.T) {
	for _, name := range strings.Fields(run(t, t.TempDir(), "rev-parse", "--local-env-vars")) {
		if !slices.Contains(repositoryVariables, name) {
			t.Errorf("this git also has %s", name)
		}
	}
	dir, lock := upstream(t)
	packed := tarball(t, dir, true)
	user, _ := upstream(t)
	index := filepath.Join(user, ".git", "index")
	before, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	objects := func() string { return run(t, user, "count-objects", "-v") }
	counted := objects()
	env := map[string]string{
		"GIT_DIR": filepath.Join(user, ".git"), "GIT_WORK_TREE": user, "GIT_INDEX_FILE": index,
		"GIT_OBJECT_DIRECTORY": filepath.Join(user, ".git", "objects"), "GIT_PREFIX": "sub/", "GIT_COMMON_DIR": filepath.Join(user, ".git"),
		"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.autocrlf", "GIT_CONFIG_VALUE_0": "true",
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	for _, from := range []string{packed, dir} {
		cache, err := stage.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Source(t.Context(), cache, lock, from, io.Discard); err != nil {
			t.Errorf("from %s: %v", filepath.Base(from), err)
		}
	}
	for name := range env {
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	if after, err := os.ReadFile(index); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the user's index was written to, %v", err)
	}
	if now := objects(); now != counted {
		t.Errorf("the user's repository was written to: %s, before %s", now, counted)
	}
}

func TestOtherTreeNamesBothHashes(t *testing.T) {
	dir, lock := upstream(t)
	if err := os.WriteFile(filepath.Join(dir, "CMakeLists.txt"), []byte("changed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed := tarball(t, dir, true)
	other := lock
	other.Tree = strings.Repeat("ab", 20)
	for name, tc := range map[string]struct {
		lock Lock
		path string
	}{"tarball": {lock, changed}, "repository": {other, dir}} {
		t.Run(name, func(t *testing.T) {
			_, err := Source(t.Context(), cache(t), tc.lock, tc.path, io.Discard)
			var mismatch *TreeMismatchError
			if !errors.As(err, &mismatch) {
				t.Fatalf("got %v", err)
			}
			if mismatch.Want != tc.lock.Tree || mismatch.Got == mismatch.Want || len(mismatch.Got) != 40 {
				t.Errorf("got %+v", mismatch)
			}
		})
	}
}

// A path that the user names is verified even if the cache has the tree.
func TestUserPathIsNotHiddenByTheCache(t *testing.T) {
	_, lock := upstream(t)
	c := cache(t)
	if _, err := Source(t.Context(), c, lock, "", io.Discard); err != nil {
		t.Fatal(err)
	}
	if _, err := Source(t.Context(), c, lock, filepath.Join(t.TempDir(), "missing"), io.Discard); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestTarballCannotEscape(t *testing.T) {
	for _, name := range []string{"top/../../evil", "top/a/../../../evil"} {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		if err := errors.Join(tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg}), tw.Close()); err != nil {
			t.Fatal(err)
		}
		if err := untarSource(&b, filepath.Join(t.TempDir(), "x")); err == nil {
			t.Errorf("%s was unpacked", name)
		}
	}
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	err := errors.Join(
		tw.WriteHeader(&tar.Header{Name: "top/link", Linkname: "/", Typeflag: tar.TypeSymlink}),
		tw.WriteHeader(&tar.Header{Name: "top/link/evil", Mode: 0o644, Typeflag: tar.TypeReg}), tw.Close())
	if err != nil {
		t.Fatal(err)
	}
	if err := untarSource(&b, filepath.Join(t.TempDir(), "x")); err == nil {
		t.Error("a file was written through a link")
	}
}

func TestParseLock(t *testing.T) {
	if _, err := SourceLock(); err != nil {
		t.Errorf("the lock in the tree: %v", err)
	}
	for _, bad := range []string{"", "{}", `{"tag":"v1","url":"u","tree":"xyz","epoch":1}`, `{"tag":"v1","url":"u","tree":"` + strings.Repeat("a", 40) + `","epoch":1,"tre":""}`} {
		if _, err := ParseLock([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParseLock(f *testing.F) {
	f.Add(lockJSON)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := ParseLock(b); err == nil && (len(l.Tree) != 40 || l.Epoch <= 0) {
			t.Errorf("accepted %+v", l)
		}
	})
}
