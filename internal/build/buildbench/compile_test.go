package buildbench

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestOutputsSplitsLibrariesAndModules(t *testing.T) {
	libraries, modules := outputs([]string{"ggml-base", "ggml-cpu-x64", "ggml-cpu-haswell"})
	if !slices.Equal(libraries, []string{"libggml-base.so"}) || !slices.Equal(modules, []string{"libggml-cpu-x64.so", "libggml-cpu-haswell.so"}) {
		t.Errorf("%v, %v", libraries, modules)
	}
}

// The test runs both commands on a small module.
func TestCompareUnchanged(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles programs; `mage test` runs this test")
	}
	dir := t.TempDir()
	files := map[string]string{
		"go.mod":              "module small\n\ngo 1.26\n",
		"mage.go":             "//go:build ignore\n\npackage main\n\nimport \"os\"\n\nfunc main() {\n\tif len(os.Args) != 2 || os.Args[1] != \"build\" {\n\t\tos.Exit(1)\n\t}\n}\n",
		"cmd/go-rocm/main.go": "package main\n\nfunc main() {}\n",
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := CompareUnchanged(t.Context(), dir, 1, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Rows) != 2 || len(s.Goals) != 1 || s.Goals[0].Got <= 0 {
		t.Errorf("%+v", s)
	}
	if _, err := CompareUnchanged(t.Context(), t.TempDir(), 1, io.Discard); err == nil {
		t.Error("a directory without a module is measured")
	}
}

func TestLastKeepsTheLastLines(t *testing.T) {
	if got := last("a\nb\nc\n", 2); got != "b\nc" {
		t.Errorf("%q", got)
	}
	if got := last("a", 2); got != "a" {
		t.Errorf("%q", got)
	}
}
