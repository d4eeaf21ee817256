package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/internal/benchpage"
)

// TestBenchmarksPageHasASectionForEach compares the page with the build benchmarks.
func TestBenchmarksPageHasASectionForEach(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range benchpage.BuildSide() {
		for _, want := range []string{"\n| `" + name + "` | ", "<!-- begin " + name + " -->\n", "<!-- end " + name + " -->\n"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("the page lacks %q", want)
			}
		}
	}
}

// TestRouterIsCompiledForTheModelsAlone compiles it for the benchmark whose peer it is.
func TestRouterIsCompiledForTheModelsAlone(t *testing.T) {
	for _, name := range benchpage.RunSide() {
		if got := needsRouter([]string{name}); got != (name == benchpage.Models) {
			t.Errorf("%s: %t", name, got)
		}
	}
	if !needsRouter(nil) || !needsRouter([]string{benchpage.Tokens, benchpage.Models}) {
		t.Error("a run with others lacks it")
	}
}
