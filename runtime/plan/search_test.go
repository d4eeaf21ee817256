package plan

import (
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// TestSearchMatchesFit compares the search with the choice of llama.cpp v0.5.0's --fit for
// the same shapes, a context of 4096 and one device with a budget of target MiB
// (llama-fit-params with an RPC server as the device, which makes no copies of host
// weights).
func TestSearchMatchesFit(t *testing.T) {
	for _, c := range []struct {
		id     string
		target uint64 // MiB
		layers int    // -ngl
		host   int    // layers whose experts --fit kept on the host, whole or in part
	}{
		{"llama3-70b-Q4_K_M", 15913, 30, 0},
		{"llama3-70b-Q4_K_M", 12105, 22, 0},
		{"llama3-70b-Q4_K_M", 10105, 18, 0},
		{"llama3-70b-Q4_K_M", 8105, 14, 0},
		{"qwen3-8b-Q8_0", 8105, 34, 0},
		{"qwen3-30b-a3b-Q4_K_M", 15913, 49, 8},
		{"qwen3-30b-a3b-Q4_K_M", 12105, 49, 19},
		{"qwen3-30b-a3b-Q4_K_M", 10105, 49, 25},
		{"qwen3-30b-a3b-Q4_K_M", 8105, 49, 31},
		{"mixtral-8x7b-Q4_K_M", 15913, 33, 16},
		{"mixtral-8x7b-Q4_K_M", 12105, 33, 21},
		{"mixtral-8x7b-Q4_K_M", 10105, 33, 23},
		{"mixtral-8x7b-Q4_K_M", 8105, 33, 26},
		{"gpt-oss-20b-MXFP4", 10105, 25, 5},
		{"gpt-oss-20b-MXFP4", 8105, 25, 10},
	} {
		m := known(t, c.id)
		l := load{context: 4096, slots: 1, unified: true, batch: 512, outputs: 512, keyType: gguf.F16, valueType: gguf.F16, flash: true}
		r := budget{c.target*MiB + m.hostLargest(m.hostOnly())}
		a, u := m.search(r, l)
		part, whole := a.onDevices()
		if diff := part - c.layers; diff < -1 || diff > 1 {
			t.Errorf("%s in %d MiB: %d layers, --fit chose %d", c.id, c.target, part, c.layers)
		}
		if diff := (part - whole) - c.host; diff < -1 || diff > 1 {
			t.Errorf("%s in %d MiB: %d layers with experts on the host, --fit chose %d", c.id, c.target, part-whole, c.host)
		}
		if !u.fits(r) {
			t.Errorf("%s in %d MiB: %d bytes do not fit", c.id, c.target, u.devices[0].Used())
		}
	}
}

func known(t *testing.T, id string) *model {
	t.Helper()
	for _, k := range ggufgen.Catalogue() {
		if k.ID() != id {
			continue
		}
		h, err := os.Create(filepath.Join(t.TempDir(), "m.gguf"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Builder().WriteSparse(h); err != nil {
			t.Fatal(err)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		f, err := gguf.Open(h.Name())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		m, err := newModel(f)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	t.Fatalf("no model %s", id)
	return nil
}
