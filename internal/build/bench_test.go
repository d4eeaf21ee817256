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
