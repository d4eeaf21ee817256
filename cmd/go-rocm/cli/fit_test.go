//go:build linux && amd64

package cli

import (
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// promised is the table of models that the project promises for a GPU of 16 GB and
// a context of 4096, with their memory in units of 10^9 bytes.
var promised = []struct {
	id   string
	gb   float64
	fits bool
}{
	{"qwen3-8b-Q4_K_M", 5.5, true},
	{"gemma3-4b-Q4_K_M", 3.3, true},
	{"llama3-8b-Q4_K_M", 5.5, true},
	{"qwen3-8b-Q8_0", 9.5, true},
	{"llama3-70b-Q4_K_M", 42, false},
}

// "go-rocm fit" prints the promised table, which the documentation shows.
func TestFitPromisedTable(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	args := []string{"fit", "--card", "gfx1101:16GiB", "--memory", "64GiB", "--context", "4096"}
	for _, p := range promised {
		path := filepath.Join(w.dir, p.id+".gguf")
		if err := writeModel(path, p.id); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	out, errs, status := w.output(t, args...)
	if status != 0 {
		t.Fatalf("status %d: %s", status, errs)
	}
	const page = "../../../docs/devices-and-memory.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile(`(?m)^    MODEL .*\n(?:    .*\n)+`)
	block := "    " + strings.ReplaceAll(strings.TrimSuffix(out, "\n"), "\n", "\n    ") + "\n"
	if *update {
		text = shown.ReplaceAllLiteral(text, []byte(block))
		if err := os.WriteFile(page, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(string(shown.Find(text)), block); d != "" {
		t.Errorf("the table in %s differs (-want +got); go test ./cmd/go-rocm/cli -run PromisedTable -update\n%s", page, d)
	}
	out, _, _ = w.output(t, append(args, "--json")...)
	var rows []modelPlan
	if err := json.Unmarshal([]byte(out), &rows); err != nil || len(rows) != len(promised) {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for i, p := range promised {
		got := rows[i].Plan
		if gb := float64(got.Needs) / 1e9; got.Fits != p.fits || math.Abs(gb-p.gb) > 0.1*p.gb {
			t.Errorf("%s: %.1f GB, fits %v; promised %.1f, %v", p.id, gb, got.Fits, p.gb, p.fits)
		}
		if partial := got.Layers > 0 && got.Layers < got.TotalLayers; partial == p.fits {
			t.Errorf("%s: %d of %d layers", p.id, got.Layers, got.TotalLayers)
		}
	}
}
