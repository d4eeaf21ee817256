//go:build linux && amd64

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// Metadata of a model file adds no rows to the table, sends no control codes to the
// terminal, and is truncated.
func TestModelsSanitizesMetadata(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	dir := t.TempDir()
	for name, texts := range map[string]map[string]string{
		"name.gguf":     {"general.name": "good\nfalse.gguf\tmodel\x1b[2J\u202egnol", "general.size_label": "\a8B"},
		"long.gguf":     {"general.name": strings.Repeat("ä", 100_000)},
		"kind.gguf":     {"general.type": "a\nb\x1b]0;title\a" + strings.Repeat("x", 1000)},
		"fi\x1ble.gguf": {"general.name": "file"},
	} {
		b := ggufgen.New("arch\x1b[1m")
		for k, v := range texts {
			b.Text(k, v)
		}
		b.Tensor("a", 0, nil, 8)
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.WriteSparse(f); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	out, errs, status := w.output(t, "models", dir, "--card", "gfx1100:24GiB", "--memory", "8GiB")
	if status != 0 {
		t.Fatalf("status %d: %s", status, errs)
	}
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if len(lines) != 5 || strings.ContainsAny(out, "\x1b\a\u202e") || !strings.Contains(out, strings.Repeat("ä", 80)+"…") {
		t.Errorf("%d lines:\n%q", len(lines), out)
	}
	for _, l := range lines {
		if n := len([]rune(l)); n > 700 {
			t.Errorf("a line of %d runes", n)
		}
	}
}
