package modtest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/packaging/modtest"
	"github.com/google/go-cmp/cmp"
)

func TestFilesAreTrackedAndExist(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "sub/a.go", "sub/removed.go", "untracked.asc"} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "go.mod", "sub"}} {
		if out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", root}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	if err := os.Remove(filepath.Join(root, "sub/removed.go")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(root, "sub"))
	have := map[string]string{}
	for _, f := range modtest.Files(t) {
		have[f.Name] = f.From
	}
	want := map[string]string{"go.mod": filepath.Join(root, "go.mod"), "sub/a.go": filepath.Join(root, "sub/a.go")}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}
