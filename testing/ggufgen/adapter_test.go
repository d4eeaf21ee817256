package ggufgen

import (
	"path/filepath"
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// TestAdapter reads back what llama.cpp requires of an adapter: the keys, and a pair of matrices
// of the right shape for each layer.
func TestAdapter(t *testing.T) {
	b, err := Adapter(TinyOptions{Layers: 3, Width: 32, Feed: 48}, AdapterOptions{Rank: 2, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "adapter.gguf")
	if err := b.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if f.Kind() != "adapter" || f.Architecture() != "llama" {
		t.Errorf("kind %q of %q", f.Kind(), f.Architecture())
	}
	shapes := map[string][]uint64{}
	for _, tensor := range f.Tensors() {
		shapes[tensor.Name] = tensor.Dims[:tensor.Rank]
	}
	for _, name := range []string{"blk.0", "blk.1", "blk.2"} {
		name += ".ffn_up.weight"
		if a, b := shapes[name+".lora_a"], shapes[name+".lora_b"]; !slices.Equal(a, []uint64{32, 2}) || !slices.Equal(b, []uint64{2, 48}) {
			t.Errorf("%s: A %v, B %v", name, a, b)
		}
	}
	if len(shapes) != 6 {
		t.Errorf("%d tensors, want 6", len(shapes))
	}
	for _, o := range []AdapterOptions{{Rank: -1}, {Deviation: -1}} {
		if _, err := Adapter(TinyOptions{}, o); err == nil {
			t.Errorf("%+v is no mistake", o)
		}
	}
}
