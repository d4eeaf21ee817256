package build

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/internal/build/settings"
)

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestCompareReportsDifferences(t *testing.T) {
	var out strings.Builder
	s := &Session{Out: &out}
	first, second, stages := t.TempDir(), t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(first, "same"), "x")
	writeFile(t, filepath.Join(second, "same"), "x")
	if err := s.compare(t.Context(), first, second, stages, stages); err != nil {
		t.Fatalf("equal directories: %v", err)
	}
	writeFile(t, filepath.Join(first, "file"), "abcd")
	writeFile(t, filepath.Join(second, "file"), "abXd")
	writeFile(t, filepath.Join(second, "more"), "x")
	err := s.compare(t.Context(), first, second, stages, stages)
	if err == nil || !strings.Contains(err.Error(), "first difference at byte 2") || !strings.Contains(err.Error(), "more") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(out.String(), "DIFFERS") {
		t.Errorf("the table lacks the difference:\n%s", out.String())
	}
}

// The explanation of a stage names its first file that differs.
func TestCompareExplainsStages(t *testing.T) {
	const name = "bundle-cpu-1"
	for _, tc := range []struct {
		name          string
		first, second map[string]string
		mode          os.FileMode // of the second's files
		want          string
	}{
		{"content", map[string]string{"lib/a": "abcd", "b": "x"}, map[string]string{"lib/a": "abXd", "b": "x"}, 0o644, "stage " + name + ": lib/a: first difference at byte 2 of 4 and 4"},
		{"mode", map[string]string{"a": "x"}, map[string]string{"a": "x"}, 0o600, "stage " + name + ": a: the modes are -rw-r--r-- and -rw-------"},
		{"one file more", map[string]string{"a": "x"}, map[string]string{"a": "x", "b": "x"}, 0o644, "stage " + name + ": b: only the second build has it"},
		{"one file less", map[string]string{"a": "x", "b": "x"}, map[string]string{"a": "x"}, 0o644, "stage " + name + ": b: only the first build has it"},
		{"the whole stage", nil, map[string]string{"a": "x"}, 0o644, "stage " + name + ": only the second build has this stage"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			first, second := t.TempDir(), t.TempDir()
			fill := func(dir string, files map[string]string, mode os.FileMode) {
				for file, content := range files {
					writeFile(t, filepath.Join(dir, name, "stage.json"), "{}")
					if err := os.Chmod(writeFile(t, filepath.Join(dir, name, "out", file), content), mode); err != nil {
						t.Fatal(err)
					}
				}
			}
			fill(first, tc.first, 0o644)
			fill(second, tc.second, tc.mode)
			s := &Session{Out: io.Discard}
			err := s.compare(t.Context(), t.TempDir(), t.TempDir(), first, second)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// A stage that is copied under a stricter umask than that of the first build is equal.
func TestReusedStageIsEqualUnderAnotherUmask(t *testing.T) {
	s := &Session{Settings: &settings.Settings{Cache: t.TempDir()}, Out: io.Discard}
	first, second := filepath.Join(s.Settings.Cache, "stages"), filepath.Join(s.secondCache(), "stages")
	writeFile(t, filepath.Join(first, "compile-hip-1", "stage.json"), "{}")
	for file, mode := range map[string]os.FileMode{"libggml-hip.so": 0o755, "bin/list": 0o644} {
		if err := os.Chmod(writeFile(t, filepath.Join(first, "compile-hip-1", "out", file), file), mode); err != nil {
			t.Fatal(err)
		}
	}
	defer syscall.Umask(syscall.Umask(0o077))
	if err := s.seedCache([]string{"compile-hip"}); err != nil {
		t.Fatal(err)
	}
	rows, err := compareStages(first, second)
	if err != nil || len(rows) != 1 || rows[0].first != rows[0].second || !rows[0].reused {
		t.Errorf("got %+v, %v", rows, err)
	}
}

// Two programs that differ in their data alone.
func TestExplainELFNamesTheSection(t *testing.T) {
	if testing.Short() {
		t.Skip("it compares large programs; `mage test` runs this test")
	}
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	marker := "a string in the read-only data of the program"
	i := strings.Index(string(program), marker)
	if i < 0 {
		t.Fatal("the marker is not in the test's own program")
	}
	dir := t.TempDir()
	a := writeFile(t, filepath.Join(dir, "a"), string(program))
	program[i] ^= 1
	b := writeFile(t, filepath.Join(dir, "b"), string(program))
	if got := explainELF(a, b); !strings.HasPrefix(got, "section .rodata differs") {
		t.Errorf("got %q", got)
	}
}

// A stage that only the second build has is a difference: its inputs depended on the
// environment.
func TestStageOfOneBuildAloneDiffers(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	c, err := stage.Open(second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(t.Context(), "compile-core", 1, func(_ context.Context, dir string) error {
		return os.WriteFile(filepath.Join(dir, "f"), nil, 0o600)
	}); err != nil {
		t.Fatal(err)
	}
	rows, err := compareStages(first, second)
	if err != nil || len(rows) != 1 || rows[0].first == rows[0].second {
		t.Errorf("got %+v, %v", rows, err)
	}
}
