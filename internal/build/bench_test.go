package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBenchmarksPageHasASectionForEach compares the page with the build benchmarks.
func TestBenchmarksPageHasASectionForEach(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range buildBenchmarks {
		for _, want := range []string{"\n| `" + name + "` | ", "<!-- begin " + name + " -->\n", "<!-- end " + name + " -->\n"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("the page lacks %q", want)
			}
		}
	}
}
