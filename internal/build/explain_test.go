package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/stage"
)

func put(t *testing.T, name, content string) string {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestCompareFindsWhatDiffers(t *testing.T) {
	var out strings.Builder
	s := &Session{Out: &out}
	first, second, stages := t.TempDir(), t.TempDir(), t.TempDir()
	put(t, filepath.Join(first, "same"), "x")
	put(t, filepath.Join(second, "same"), "x")
	if err := s.compare(first, second, stages, stages); err != nil {
		t.Fatalf("equal folders: %v", err)
	}
	put(t, filepath.Join(first, "file"), "abcd")
	put(t, filepath.Join(second, "file"), "abXd")
	put(t, filepath.Join(second, "more"), "x")
	err := s.compare(first, second, stages, stages)
	if err == nil || !strings.Contains(err.Error(), "first difference at byte 2") || !strings.Contains(err.Error(), "more") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(out.String(), "DIFFERS") {
		t.Errorf("the table does not say so:\n%s", out.String())
	}
}

// Two programs of which only the data differs.
func TestExplainELF(t *testing.T) {
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	marker := "a string that stands in the program's read-only data"
	i := strings.Index(string(program), marker)
	if i < 0 {
		t.Fatal("the marker is not in the test's own program")
	}
	dir := t.TempDir()
	a := put(t, filepath.Join(dir, "a"), string(program))
	program[i] ^= 1
	b := put(t, filepath.Join(dir, "b"), string(program))
	if got := explainELF(a, b); !strings.HasPrefix(got, "section .rodata differs") {
		t.Errorf("got %q", got)
	}
}

// A stage that only the second build has means that its inputs depended on
// the circumstances.
func TestStageThatOnlyOneBuildHas(t *testing.T) {
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
	rows, err := stageOutputs(first, second)
	if err != nil || len(rows) != 1 || rows[0].first == rows[0].second {
		t.Errorf("got %+v, %v", rows, err)
	}
}
