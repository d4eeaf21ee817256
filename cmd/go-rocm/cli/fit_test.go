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

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen/fitcheck"
)

var update = flag.Bool("update", false, "write the golden files anew")

// promised are the models of the table that the project promises for a card of
// 16 GB and a context of 4096, with their memory in units of 10^9 bytes.
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

// TestFitPromisedTable: "go-rocm fit" makes the promised table, which a page of
// the documentation shows.
func TestFitPromisedTable(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	args := []string{"fit", "--card", "gfx1101:16GiB", "--memory", "64GiB", "--context", "4096"}
	known := map[string]ggufgen.Known{}
	for _, k := range ggufgen.Catalogue() {
		known[k.ID()] = k
	}
	for _, p := range promised {
		path, err := fitcheck.Write(w.dir, known[p.id])
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	out, errs, status := w.output(t, "", args...)
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
	out, _, _ = w.output(t, "", append(args, "--json")...)
	var rows []fitted
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

// TestFitMistakes: one model that cannot be planned for does not hide the others.
func TestFitMistakes(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	out, errs, status := w.output(t, "", "fit", w.model, "/no/such.gguf")
	if status != exitFailure || !strings.Contains(out, "smollm2") || !strings.Contains(out, "cannot be planned for") || !strings.Contains(errs, "no such file") {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
	for card, says := range map[string]string{
		"gfx1101": "target and a size", "gfx1101:16": "no unit", "gfx1101:GiB": "not a number", "gfx1101:0G": "not a number",
		"radeon:16GiB": "radeon", "gfx1101:16GG": "no unit", "gfx1101:99999999999G": "not a number",
	} {
		if _, errs, status := w.output(t, "", "fit", w.model, "--card", card); status != exitUsage || !strings.Contains(errs, says) {
			t.Errorf("%s: status %d, %s", card, status, errs)
		}
	}
	if _, errs, status := w.output(t, "", "fit", w.model, "--memory", "64"); status != exitUsage || !strings.Contains(errs, "no unit") {
		t.Errorf("--memory: status %d, %s", status, errs)
	}
	if target, n, err := parseCard("gfx1100:24576mib"); err == nil || target != "" || n != 0 {
		t.Errorf("%s, %d, %v", target, n, err)
	}
	if target, n, err := parseCard("gfx1100:24576MiB"); err != nil || target != "gfx1100" || n != 24<<30 {
		t.Errorf("%s, %d, %v", target, n, err)
	}
}

// TestModelsSaysWhatFits: every kind of file below the folder, with what would
// become of it.
func TestModelsSaysWhatFits(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	dir := filepath.Join(w.dir, "models")
	deep := filepath.Join(dir, "a", "b")
	hf := filepath.Join(dir, "hf")
	for _, d := range []string{deep, hf} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range ggufgen.Catalogue() {
		if k.ID() == "llama3-70b-Q4_K_M" {
			if _, err := fitcheck.Write(deep, k); err != nil {
				t.Fatal(err)
			}
		}
	}
	adapter, err := os.Create(filepath.Join(dir, "lora.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	b := ggufgen.New("llama")
	b.Text("general.type", "adapter")
	b.Tensor("blk.0.attn_q.weight.lora_a", 0, nil, 8, 4)
	if _, err := b.WriteSparse(adapter); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		filepath.Join(dir, "bad.gguf"):         "no model",
		filepath.Join(hf, "config.json"):       `{"model_type":"qwen3","max_position_embeddings":40960,"torch_dtype":"bfloat16"}`,
		filepath.Join(hf, "model.safetensors"): "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := adapter.Close(); err != nil {
		t.Fatal(err)
	}
	args := []string{"models", dir, "--card", "gfx1100:24GiB", "--memory", "8GiB", "--context", "4096"}
	out, errs, status := w.output(t, "", append(args, "--json")...)
	var list []rocm.Found
	if err := json.Unmarshal([]byte(out), &list); err != nil || status != 0 {
		t.Fatalf("status %d, %v: %s", status, err, errs)
	}
	got := map[string]rocm.Found{}
	for _, m := range list {
		got[filepath.Base(m.Path)] = m
	}
	small, large := got["smollm2-135m-Q8_0.gguf"], got["llama3-70b-Q4_K_M.gguf"]
	if !small.Fits || small.Here != "fits" || small.Name != "smollm2-135m" || small.SizeClass == "" || small.Quantisation != "Q8_0" || small.ContextLength == 0 || small.Bytes == 0 || small.Context != 4096 {
		t.Errorf("small: %+v", small)
	}
	if large.Fits || large.Here != "too large for this machine" {
		t.Errorf("large: %+v", large)
	}
	for name, says := range map[string]string{"bad.gguf": "not a GGUF", "hf": "convert_hf_to_gguf", "lora.gguf": "--adapter"} {
		if m := got[name]; m.Loadable || m.Here != "" || !strings.Contains(m.Why, says) {
			t.Errorf("%s: %+v", name, m)
		}
	}
	out, _, _ = w.output(t, "", args...)
	for _, says := range []string{"a/b/llama3-70b-Q4_K_M.gguf", "HERE", "fits", "safetensors: convert"} {
		if !strings.Contains(out, says) {
			t.Errorf("the table lacks %q:\n%s", says, out)
		}
	}
}

func TestGPUTable(t *testing.T) {
	var b strings.Builder
	err := printGPUs(&b, []gpu.Device{
		{PCI: "0000:03:00.0", Target: "gfx1100", Name: "RX 7900 XTX", VRAMTotal: 24 << 30, VRAMUsed: 6 << 30, Visible: true, Sensors: gpu.Sensors{EdgeCelsius: 41, PowerWatts: 31.4}},
		{PCI: "0000:18:00.0", Target: "gfx1036", Name: "Raphael", Integrated: true, VRAMTotal: 512 << 20, VRAMUsed: 1, UnusableReason: "hidden by HIP_VISIBLE_DEVICES in the environment"},
	})
	want := `PCI           TARGET   NAME         KIND        MEMORY IN USE           FREE      TOTAL     NOW          USABLE
0000:03:00.0  gfx1100  RX 7900 XTX  discrete    [#####...............]  18.0 GiB  24.0 GiB  41 °C, 31 W  yes
0000:18:00.0  gfx1036  Raphael      integrated  [#...................]  512 MiB   512 MiB                no: hidden by HIP_VISIBLE_DEVICES in the environment
`
	if err != nil || b.String() != want {
		t.Errorf("%v\n%s", err, cmp.Diff(want, b.String()))
	}
	for _, c := range []struct {
		used, total uint64
		want        int
	}{{0, 10, 0}, {1, 1 << 40, 1}, {5, 10, 10}, {10, 10, 20}, {11, 10, 20}, {1, 0, 0}} {
		if got := strings.Count(bar(c.used, c.total), "#"); got != c.want {
			t.Errorf("%d of %d: %d steps, want %d", c.used, c.total, got, c.want)
		}
	}
}

// TestModelsFromStrangers: what a file says of itself makes no row, drives no
// terminal and fills no page.
func TestModelsFromStrangers(t *testing.T) {
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
	out, errs, status := w.output(t, "", "models", dir, "--card", "gfx1100:24GiB", "--memory", "8GiB")
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
