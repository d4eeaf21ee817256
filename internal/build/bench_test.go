package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBenchPageHasEveryPlace keeps the page and the build's own benchmarks together.
func TestBenchPageHasEveryPlace(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range buildSide {
		for _, want := range []string{"\n| `" + name + "` | ", "<!-- begin " + name + " -->\n", "<!-- end " + name + " -->\n"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("the page lacks %q", want)
			}
		}
	}
}
