//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/doctest"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// TestReadmeExample builds and runs the first program of the README.
func TestReadmeExample(t *testing.T) {
	markdown, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range doctest.Extract(markdown) {
		if !s.Program() {
			continue
		}
		dir := t.TempDir()
		source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "example")
		if err := os.WriteFile(source, []byte(s.Text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, source).CombinedOutput(); err != nil {
			t.Fatalf("README.md:%d: %v\n%s", s.Line, err, out)
		}
		cmd := exec.CommandContext(t.Context(), binary, realModel(t, models.SmolLM2()))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("README.md:%d: %v", s.Line, err)
		}
		if !strings.Contains(string(out), answer) {
			t.Errorf("README.md:%d: the example said %q", s.Line, out)
		}
		return
	}
	t.Fatal("README.md shows no Go program")
}
