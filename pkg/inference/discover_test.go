package inference

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ggufBytes writes a GGUF header of version 3 without tensors.
type ggufBytes struct {
	bytes.Buffer
	keys int
}

func (g *ggufBytes) put(vs ...any) {
	for _, v := range vs {
		if s, ok := v.(string); ok {
			g.put(uint64(len(s)), []byte(s))
			continue
		}
		if err := binary.Write(&g.Buffer, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
}

func (g *ggufBytes) str(key, value string) *ggufBytes {
	g.put(key, uint32(ggufString), value)
	g.keys++
	return g
}

func (g *ggufBytes) u32(key string, value uint32) *ggufBytes {
	g.put(key, uint32(ggufUint32), value)
	g.keys++
	return g
}

func (g *ggufBytes) strs(key string, values ...string) *ggufBytes {
	g.put(key, uint32(ggufArray), uint32(ggufString), uint64(len(values)))
	for _, v := range values {
		g.put(v)
	}
	g.keys++
	return g
}

func (g *ggufBytes) i32s(key string, values ...int32) *ggufBytes {
	g.put(key, uint32(ggufArray), uint32(5), uint64(len(values)), values)
	g.keys++
	return g
}

// file returns the whole header.
func (g *ggufBytes) file() []byte {
	var h ggufBytes
	h.put([]byte("GGUF"), uint32(3), uint64(0), uint64(g.keys))
	return append(h.Bytes(), g.Bytes()...)
}

func model(arch string, ftype uint32) []byte {
	return new(ggufBytes).str("general.architecture", arch).str("general.type", "model").
		u32("general.file_type", ftype).strs("tokenizer.ggml.tokens", "a", "b").file()
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
		"top.gguf":                        model("llama", 15),
		"notes.txt":                       []byte("not a model"),
		"b-mlx/config.json":               []byte(`{"model_type":"gemma3","quantization":{"bits":4,"group_size":64}}`),
		"b-mlx/model-1.safetensors":       {},
		"b-mlx/model-2.safetensors":       {},
		"c-hf/config.json":                []byte(`{"text_config":{"model_type":"qwen3"},"quantization_config":{"bits":8,"group_size":128}}`),
		"c-hf/model.safetensors":          {},
		"d-gguf/q8.gguf":                  model("qwen3", 7),
		"d-gguf/big-00001-of-00003.gguf":  model("deepseek2", 1),
		"d-gguf/big-00002-of-00003.gguf":  model("", 1),
		"d-gguf/big-00003-of-00003.gguf":  model("", 1),
		"d-gguf/lost-00002-of-00002.gguf": model("llama", 1),
		"d-gguf/mmproj.gguf":              new(ggufBytes).str("general.architecture", "clip").file(),
		"d-gguf/lora.gguf":                new(ggufBytes).str("general.architecture", "llama").str("general.type", "adapter").file(),
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
	for _, name := range []string{"d-gguf/pipe.gguf", "f-noconfig/config.json"} { // an open would wait at them
		if err := mkfifo(p(name)); err != nil {
			t.Fatal(err)
		}
	}
	want := []DiscoveredModel{
		{p("top.gguf"), "llama", 4, 256, 1},
		{p("b-mlx"), "gemma3", 4, 64, 2},
		{p("c-hf"), "qwen3", 8, 128, 1},
		{p("d-gguf/big-00001-of-00003.gguf"), "deepseek2", 16, 0, 3},
		{p("d-gguf/q8.gguf"), "qwen3", 8, 32, 1},
		{p("z-link"), "gemma3", 4, 64, 2},
	}
	if got := slices.Collect(Discover(base)); !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for m := range Discover(base) {
		if m != want[0] {
			t.Errorf("first model %+v", m)
		}
		break
	}
}

func TestDiscoverNothing(t *testing.T) {
	for name, dir := range map[string]string{"empty": t.TempDir(), "absent": filepath.Join(t.TempDir(), "no")} {
		if got := slices.Collect(Discover(dir)); got != nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestParseGGUFHead(t *testing.T) {
	long := make([]string, 100_000)
	for i := range long {
		long[i] = fmt.Sprintf("token%d", i)
	}
	for _, tc := range []struct {
		name string
		data []byte
		want DiscoveredModel
	}{
		{"file type behind the tokenizer", new(ggufBytes).str("general.architecture", "llama").
			strs("tokenizer.ggml.tokens", long...).i32s("tokenizer.ggml.token_type", 1, 2, 3).
			u32("general.file_type", 18).file(), DiscoveredModel{ModelType: "llama", QuantBits: 6, QuantGroup: 256}},
		{"guessed type", model("llama", 1024+2), DiscoveredModel{ModelType: "llama", QuantBits: 4, QuantGroup: 32}},
		{"unknown type", model("llama", 900), DiscoveredModel{ModelType: "llama"}},
		{"no type", new(ggufBytes).str("general.architecture", "rwkv7").file(), DiscoveredModel{ModelType: "rwkv7"}},
		{"torn behind the architecture", model("llama", 2)[:90], DiscoveredModel{ModelType: "llama"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseGGUFHead(bytes.NewReader(tc.data))
			if err != nil || got != tc.want {
				t.Errorf("got %+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
}

func TestParseGGUFHeadErrors(t *testing.T) {
	huge := new(ggufBytes)
	huge.put("k", uint32(ggufArray), uint32(ggufUint32), uint64(1)<<62)
	huge.keys = 1
	longKey := new(ggufBytes)
	longKey.put(uint64(1) << 40)
	longKey.keys = 1
	nested := new(ggufBytes)
	nested.put("k", uint32(ggufArray), uint32(ggufArray), uint64(1))
	nested.keys = 1
	odd := new(ggufBytes)
	odd.put("k", uint32(99))
	odd.keys = 1
	for _, tc := range []struct {
		name, want string
		data       []byte
	}{
		{"empty", "gguf header: EOF", nil},
		{"magic", "wrong magic", bytes.Repeat([]byte{'x'}, 24)},
		{"version", "version 9", append([]byte("GGUF\x09\x00\x00\x00"), make([]byte, 16)...)},
		{"no keys", "no general.architecture", new(ggufBytes).file()},
		{"huge array", "elements", huge.file()},
		{"huge key", "gguf string of", longKey.file()},
		{"array of arrays", "array of type 9", nested.file()},
		{"odd type", "value of type 99", odd.file()},
		{"imatrix", `general.type is "imatrix"`, new(ggufBytes).str("general.type", "imatrix").file()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := parseGGUFHead(bytes.NewReader(tc.data))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("err = %v, want %q in it", err, tc.want)
			}
		})
	}
	if _, err := parseGGUFHead(bytes.NewReader(new(ggufBytes).str("general.architecture", "clip").file())); !errors.Is(err, errNotModel) {
		t.Errorf("projector: %v", err)
	}
}

func FuzzParseGGUFHead(f *testing.F) {
	f.Add(model("llama", 2))
	f.Add(model("llama", 2)[:60])
	f.Add(new(ggufBytes).i32s("x", 1, 2).strs("y", "a").str("general.architecture", "a").file())
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseGGUFHead(bytes.NewReader(data))
		if (err == nil) != (m.ModelType != "") {
			t.Errorf("model %+v with error %v", m, err)
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"model_type":"gemma3","quantization":{"bits":4,"group_size":64}}`))
	f.Add([]byte(`{"quantization_config":{"bits":-1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseConfig(bytes.NewReader(data))
		if err == nil && (m.QuantBits < 0 || m.QuantGroup < 0) {
			t.Errorf("negative quantisation: %+v", m)
		}
	})
}
