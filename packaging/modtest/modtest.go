// Package modtest lists the files of this module as a release publishes them, for tests
// in which the go command downloads the module from a directory.
package modtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/packaging/goproxy"
)

// Path is the path of the module.
const Path = "forge.lthn.ai/core/go-rocm"

// Files returns the files that git tracks in the checkout of the test, without removed
// files that are not yet committed.
func Files(t testing.TB) []goproxy.File {
	t.Helper()
	root := strings.TrimSpace(git(t, "rev-parse", "--show-toplevel"))
	var files []goproxy.File
	for name := range strings.SplitSeq(strings.TrimRight(git(t, "-C", root, "ls-files", "-z"), "\x00"), "\x00") {
		from := filepath.Join(root, name)
		if info, err := os.Lstat(from); err == nil && info.Mode().IsRegular() {
			files = append(files, goproxy.File{Name: name, From: from})
		}
	}
	if len(files) == 0 {
		t.Fatalf("git tracks no file in %s", root)
	}
	return files
}

func git(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return string(out)
}
