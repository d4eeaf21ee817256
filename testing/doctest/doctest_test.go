package doctest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	// The packages that the documents import. The test cache does not see the files
	// that a go command compiles; these imports make it depend on them.
	_ "forge.lthn.ai/core/go-rocm"
	_ "forge.lthn.ai/core/go-rocm/pkg/inference"
)

func TestExtractFindsFencedBlocks(t *testing.T) {
	tests := map[string]struct {
		markdown string
		want     []Snippet
	}{
		"none":            {"text `code` text\n", nil},
		"two":             {"# T\n\n```go\na\n```\n\n~~~sh title\nb\n\nc\n~~~\n", []Snippet{{"go", "a\n", 4}, {"sh", "b\n\nc\n", 8}}},
		"longer fence":    {"````md\n```go\nx\n```\n````\n", []Snippet{{"md", "```go\nx\n```\n", 2}}},
		"other fence":     {"```\n~~~\n```\n", []Snippet{{"", "~~~\n", 2}}},
		"indented":        {"  ```go\n  a\n    b\n  ```\n", []Snippet{{"go", "a\n  b\n", 2}}},
		"code by indent":  {"    ```go\n    a\n", nil},
		"never closed":    {"```go\na", []Snippet{{"go", "a\n", 2}}},
		"carriage return": {"```go\r\na\r\n```\r\n", []Snippet{{"go", "a\n", 2}}},
		"inline":          {"``` not a `fence` ```\n", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Extract([]byte(tt.markdown))); diff != "" {
				t.Errorf("code blocks (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzExtract(f *testing.F) {
	f.Add([]byte("```go\npackage main\n```\n"))
	f.Add([]byte("~~~\n```\n~~~~\n   ````x`\n"))
	f.Fuzz(func(t *testing.T, markdown []byte) {
		lines := bytes.Count(markdown, []byte("\n")) + 2
		for _, s := range Extract(markdown) {
			if s.Line < 2 || s.Line > lines || s.Text != "" && !strings.HasSuffix(s.Text, "\n") {
				t.Errorf("bad snippet %+v", s)
			}
		}
	})
}

// TestDocumentedProgramsCompile compiles every Go program in the documents, as a package
// of this module.
func TestDocumentedProgramsCompile(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles programs; `mage test` runs this test")
	}
	documents, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	documents = append(documents, "../../README.md")
	programs := map[string]int{}
	for _, document := range documents {
		markdown, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range Extract(markdown) {
			if s.Program() {
				programs[document]++
				compile(t, document, s)
			}
		}
	}
	if programs["../../README.md"] == 0 {
		t.Error("README.md shows no Go program that a newcomer could copy")
	}
}

func compile(t *testing.T, document string, s Snippet) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(s.Text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "vet", file)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s:%d: %v\n%s\n%s", document, s.Line, err, out, s.Text)
	}
}
