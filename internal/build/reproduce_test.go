package build

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The second checkout has the working tree as it is, and the first one's
// revision.
func TestCopyCheckout(t *testing.T) {
	root, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	git := func(dir string, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.org"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git(root, "init", "--quiet")
	put(t, filepath.Join(root, "a"), "committed")
	put(t, filepath.Join(root, ".gitignore"), "dist\n")
	git(root, "add", "--all")
	git(root, "commit", "--quiet", "-m", "first")
	put(t, filepath.Join(root, "a"), "changed")
	put(t, filepath.Join(root, "new", "b"), "untracked")
	put(t, filepath.Join(root, "dist", "c"), "ignored")
	if err := copyCheckout(t.Context(), root, to); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "changed", "new/b": "untracked"} {
		if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(to, "dist")); err == nil {
		t.Error("ignored files were copied")
	}
	if a, b := git(root, "rev-parse", "HEAD"), git(to, "rev-parse", "HEAD"); a != b {
		t.Errorf("revisions %s and %s", a, b)
	}
}
