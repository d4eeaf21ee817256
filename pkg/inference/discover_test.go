package inference_test

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// ggufFile returns a GGUF file with one tensor of a type, and metadata.
func ggufFile(t *testing.T, arch string, typ gguf.TensorType, metadata map[string]any) []byte {
	t.Helper()
	b := ggufgen.New(arch)
	for key, value := range metadata {
		switch v := value.(type) {
		case string:
			b.Text(key, v)
		case int:
			b.Uint(key, uint32(v))
		}
	}
	b.Tensor(arch, typ, func(w io.Writer, size uint64) error {
		_, err := w.Write(make([]byte, size))
		return err
	}, 256)
	path := filepath.Join(t.TempDir(), "x.gguf")
	if err := b.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func write(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, data := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDiscover(t *testing.T) {
	base := t.TempDir()
	write(t, base, map[string][]byte{
		"top.gguf":                        ggufFile(t, "llama", gguf.Q4_K, nil),
		"notes.txt":                       []byte("not a model"),
		"b-mlx/config.json":               []byte(`{"model_type":"gemma3","quantization":{"bits":4,"group_size":64}}`),
		"b-mlx/model-1.safetensors":       {},
		"b-mlx/model-2.safetensors":       {},
		"c-hf/config.json":                []byte(`{"text_config":{"model_type":"qwen3"},"quantization_config":{"bits":8,"group_size":128}}`),
		"c-hf/model.safetensors":          {},
		"d-gguf/q8.gguf":                  ggufFile(t, "qwen3", gguf.Q8_0, map[string]any{"general.type": "model"}),
		"d-gguf/big-00001-of-00002.gguf":  ggufFile(t, "deepseek2", gguf.F16, map[string]any{"split.no": 0, "split.count": 2}),
		"d-gguf/big-00002-of-00002.gguf":  ggufFile(t, "second", gguf.F16, map[string]any{"split.no": 1, "split.count": 2}),
		"d-gguf/lost-00002-of-00002.gguf": ggufFile(t, "llama", gguf.F16, nil),
		"d-gguf/half-00001-of-00002.gguf": ggufFile(t, "llama", gguf.F16, map[string]any{"split.no": 0, "split.count": 2}),
		"d-gguf/mmproj.gguf":              ggufFile(t, "clip", gguf.F16, nil),
		"d-gguf/model-mmproj-f16.gguf":    ggufFile(t, "clip", gguf.F16, map[string]any{"general.type": "mmproj"}),
		"d-gguf/lora.gguf":                ggufFile(t, "llama", gguf.F16, map[string]any{"general.type": "adapter"}),
		"d-gguf/imatrix.gguf":             ggufFile(t, "llama", gguf.F32, map[string]any{"general.type": "imatrix"}),
		"d-gguf/torn.gguf":                []byte("GGUF\x03\x00\x00"),
		"e-noweights/config.json":         []byte(`{"model_type":"llama"}`),
		"f-noconfig/model.safetensors":    {},
		"g-badconfig/config.json":         []byte(`{`),
		"g-badconfig/w.safetensors":       {},
		"h/deeper/config.json":            []byte(`{"model_type":"llama"}`),
		"h/deeper/w.safetensors":          {},
	})
	if err := os.Symlink(filepath.Join(base, "b-mlx"), filepath.Join(base, "z-link")); err != nil {
		t.Fatal(err)
	}
	p := func(s string) string { return filepath.Join(base, s) }
	for _, name := range []string{"d-gguf/pipe.gguf", "f-noconfig/config.json", "pipe"} { // an open would wait at them
		if err := mkfifo(p(name)); err != nil {
			t.Fatal(err)
		}
	}
	want := []inference.DiscoveredModel{
		{p("top.gguf"), "llama", 4, 256, 1},
		{p("b-mlx"), "gemma3", 4, 64, 2},
		{p("c-hf"), "qwen3", 8, 128, 1},
		{p("d-gguf/big-00001-of-00002.gguf"), "deepseek2", 16, 0, 2},
		{p("d-gguf/q8.gguf"), "qwen3", 8, 32, 1},
		{p("z-link"), "gemma3", 4, 64, 2},
	}
	if got := slices.Collect(inference.Discover(base)); !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for m := range inference.Discover(base) {
		if m != want[0] {
			t.Errorf("first model %+v", m)
		}
		break
	}
}

func TestDiscoverNothing(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe") // reading it would block
	if err := mkfifo(pipe); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"empty": t.TempDir(), "absent": filepath.Join(t.TempDir(), "no"), "FIFO": pipe} {
		if got := slices.Collect(inference.Discover(dir)); got != nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}
