package release_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/release"
	"forge.lthn.ai/core/go-rocm/testing/filetree"
)

func TestChecksumsVerifyWithSha256sum(t *testing.T) {
	t.Parallel()
	dir := filetree.Write(t, map[string]string{"b": "two", "a": "one", "sub/c d": "", ".hidden": "x", ".dir/e": "x"})
	for range 2 { // the second time, the list itself exists
		if err := release.WriteChecksums(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, release.ChecksumsFile))
	if err != nil {
		t.Fatal(err)
	}
	const want = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed  a\n" +
		"3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3  b\n" +
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  sub/c d\n"
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	check := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", release.ChecksumsFile)
	check.Dir = dir
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
	var diff *release.ChecksumError
	if _, err := release.Verify(t.Context(), dir, release.TrustedKeys{}); !errors.As(err, &diff) || !slices.Equal(diff.Unlisted, []string{".dir/e", ".hidden"}) {
		t.Errorf("with hidden files: %v", err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, ".dir")), os.Remove(filepath.Join(dir, ".hidden"))); err != nil {
		t.Fatal(err)
	}
	if r, err := release.Verify(t.Context(), dir, release.TrustedKeys{}); err != nil || len(r.Files) != 3 || r.Signatures != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestVerifyListsDifferences(t *testing.T) {
	t.Parallel()
	dir := filetree.Write(t, map[string]string{"a": "one", "b": "two", "c": "three"})
	if err := release.WriteChecksums(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"b": "twO", "d": "four"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var diff *release.ChecksumError
	if _, err := release.Verify(t.Context(), dir, release.TrustedKeys{}); !errors.As(err, &diff) {
		t.Fatalf("got %v", err)
	}
	want := &release.ChecksumError{Missing: []string{"a"}, Changed: []string{"b"}, Unlisted: []string{"d"}}
	if d := cmp.Diff(want, diff); d != "" {
		t.Errorf("differences (-want +got):\n%s", d)
	}
	if text := diff.Error(); !strings.Contains(text, "missing: a; changed: b; not listed: d") {
		t.Errorf("message %q", text)
	}
	if _, err := release.Verify(t.Context(), t.TempDir(), release.TrustedKeys{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a list: %v", err)
	}
}

func TestComputeChecksumsRejectsSymlinks(t *testing.T) {
	t.Parallel()
	dir := filetree.Write(t, map[string]string{"a": "one"})
	if err := os.Symlink("a", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := release.ComputeChecksums(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "link is not a regular file") {
		t.Errorf("got %v", err)
	}
}

func TestParseChecksumsRejects(t *testing.T) {
	t.Parallel()
	digest := strings.Repeat("a", 64)
	for name, tc := range map[string]struct{ list, want string }{
		"no digest":    {"x  a\n", "line 1"},
		"upper case":   {strings.ToUpper(digest) + "  a\n", "line 1"},
		"one space":    {digest + " a\n", "line 1"},
		"parent":       {digest + "  a\n" + digest + "  ../b\n", "line 2"},
		"absolute":     {digest + "  /etc/passwd\n", "inside the directory"},
		"control code": {digest + "  a\x1b[2J\n", `"a\x1b[2J" is not a path`},
		"duplicate":    {digest + "  a\n" + digest + "  a\n", "duplicate"},
		"endless line": {digest + "  " + strings.Repeat("a", 1<<17), "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := release.ParseChecksums(strings.NewReader(tc.list))
			if !errors.Is(err, release.ErrChecksums) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error about %q", err, tc.want)
			}
		})
	}
}

func FuzzParseChecksums(f *testing.F) {
	f.Add(strings.Repeat("a", 64) + "  a/b\n")
	f.Add(strings.Repeat("0", 64) + "  ..\n\n")
	f.Fuzz(func(t *testing.T, list string) {
		sums, err := release.ParseChecksums(strings.NewReader(list))
		if err != nil {
			return
		}
		second, err := release.ParseChecksums(strings.NewReader(string(release.FormatChecksums(sums))))
		if err != nil {
			t.Fatalf("the formatted list is rejected: %v", err)
		}
		if d := cmp.Diff(sums, second); d != "" {
			t.Errorf("parsing the formatted list differs:\n%s", d)
		}
	})
}
