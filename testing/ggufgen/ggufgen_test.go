package ggufgen

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// vocabulary returns a small file with the tokenizer's keys.
func vocabulary(t *testing.T) *gguf.File {
	t.Helper()
	b := New("llama")
	b.Text("tokenizer.ggml.model", "llama")
	b.Texts("tokenizer.ggml.tokens", []string{"<unk>", "<s>", "</s>", "a", "b"})
	b.Uints("tokenizer.ggml.token_type", []uint32{2, 3, 3, 1, 1})
	b.Uint("tokenizer.ggml.eos_token_id", 2)
	b.Bool("tokenizer.ggml.add_bos_token", true)
	b.Float("tokenizer.scale", 0.5)
	b.Bools("tokenizer.flags", []bool{true, false})
	return open(t, b)
}

func open(t *testing.T, b *Builder) *gguf.File {
	t.Helper()
	var buf bytes.Buffer
	n, err := b.WriteTo(&buf)
	if err != nil || n != int64(buf.Len()) {
		t.Fatalf("%d bytes said, %d written, %v", n, buf.Len(), err)
	}
	f, err := gguf.NewReader(bytes.NewReader(buf.Bytes()), n)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func write(t *testing.T, o TinyOptions) []byte {
	t.Helper()
	b, err := Tiny(vocabulary(t), o)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if _, err := b.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestDeterministic compares the bytes with a digest: they may only change on purpose.
func TestDeterministic(t *testing.T) {
	for _, c := range []struct {
		o    TinyOptions
		want string
	}{
		{TinyOptions{Seed: 1}, "9e4cb5dc74618c96"},
		{TinyOptions{Seed: 1, Type: gguf.F16}, "0371bbbfd70abf7b"},
	} {
		sum := sha256.Sum256(write(t, c.o))
		if got := hex.EncodeToString(sum[:8]); got != c.want {
			t.Errorf("%s: digest %s, want %s", c.o.Type, got, c.want)
		}
	}
	if bytes.Equal(write(t, TinyOptions{Seed: 1}), write(t, TinyOptions{Seed: 2})) {
		t.Error("two seeds give the same weights")
	}
}

func TestTiny(t *testing.T) {
	b := write(t, TinyOptions{Seed: 7, Layers: 3, Type: gguf.F16, Name: "three"})
	f, err := gguf.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if f.Name() != "three" || f.BlockCount() != 3 || f.VocabSize() != 5 || f.Quantisation() != "F16" || len(f.Tensors()) != 2+3*9 {
		t.Errorf("%q, %d layers, %d tokens, %s, %d tensors", f.Name(), f.BlockCount(), f.VocabSize(), f.Quantisation(), len(f.Tensors()))
	}
	from := vocabulary(t)
	for key, want := range from.Metadata() {
		if !strings.HasPrefix(key, "tokenizer.") {
			continue
		}
		got, ok := f.Lookup(key)
		if !ok || got.String() != want.String() || got.Type() != want.Type() {
			t.Errorf("%s: %v, want %v", key, got, want)
		}
	}
	for name, o := range map[string]TinyOptions{
		"negative":    {Layers: -1},
		"heads":       {Width: 60, Heads: 7},
		"key heads":   {Heads: 4, KVHeads: 3},
		"odd heads":   {Width: 12, Heads: 4, KVHeads: 4},
		"ternary":     {Type: gguf.TQ1_0},
		"narrow":      {Type: gguf.Q4_K},
		"loud half":   {Type: gguf.F16, Loud: 1},
		"loud beyond": {Loud: 5},
		"loud below":  {Loud: -1},
		"norm below":  {Norm: -1},
		"no tokens":   {},
		"no tokenize": {},
	} {
		v := vocabulary(t)
		switch name {
		case "no tokens":
			b := New("llama")
			b.Text("tokenizer.ggml.model", "llama")
			v = open(t, b)
		case "no tokenize":
			v = open(t, New("llama"))
		}
		if _, err := Tiny(v, o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestQuantisedWeights checks that a file of each quantised type is read back as one, and is the same
// twice. The end-to-end tests compute with them.
func TestQuantisedWeights(t *testing.T) {
	types := QuantisedTypes()
	if len(types) < 12 {
		t.Errorf("only %v", types)
	}
	for _, typ := range types {
		b := write(t, TinyOptions{Seed: 1, Width: 256, Feed: 256, Type: typ})
		f, err := gguf.NewReader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := f.DominantType(); !ok || got != typ || f.Quantisation() != typ.String() {
			t.Errorf("%s: the file has %s, %s", typ, got, f.Quantisation())
		}
		if !bytes.Equal(b, write(t, TinyOptions{Seed: 1, Width: 256, Feed: 256, Type: typ})) {
			t.Errorf("%s: two files of one seed differ", typ)
		}
	}
}

// TestDequantisedWeights checks that the numbers of each type have the mean and deviation that random weights are meant to have.
// The end-to-end tests compare what llama.cpp computes with the blocks and with the numbers.
func TestDequantisedWeights(t *testing.T) {
	for _, typ := range append(QuantisedTypes(), gguf.F16) {
		b := write(t, TinyOptions{Seed: 1, Width: 256, Feed: 256, Type: typ, Dequantised: true})
		f, err := gguf.NewReader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Quantisation(); got != "F32" {
			t.Errorf("%s: the file has %s", typ, got)
		}
		m, _ := f.Tensor("blk.0.ffn_up.weight")
		var sum, squares float64
		n := float64(m.Bytes / 4)
		for at := uint64(0); at < m.Bytes; at += 4 {
			x := float64(math.Float32frombits(binary.LittleEndian.Uint32(b[uint64(m.Offset)+at:])))
			sum += x
			squares += x * x
		}
		if mean, deviation := sum/n, math.Sqrt(squares/n); math.Abs(mean) > 0.02 || deviation < 0.08 || deviation > 0.22 {
			t.Errorf("%s: mean %.3f, deviation %.3f", typ, mean, deviation)
		}
	}
}

// TestLargeWeights checks that one row of the embedding is larger, and that nothing else differs.
func TestLargeWeights(t *testing.T) {
	plain, loud := write(t, TinyOptions{Seed: 7}), write(t, TinyOptions{Seed: 7, Loud: 3})
	f, err := gguf.NewReader(bytes.NewReader(loud), int64(len(loud)))
	if err != nil {
		t.Fatal(err)
	}
	e, _ := f.Tensor("token_embd.weight")
	row := int(e.Bytes) / f.VocabSize()
	from := int(e.Offset) + 3*row
	for i := range plain {
		if inside := i >= from && i < from+row; !inside && plain[i] != loud[i] {
			t.Fatalf("byte %d differs, outside of %d to %d", i, from, from+row)
		}
	}
	number := func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b[from:])) }
	if got, want := number(loud), 30*number(plain); got != want {
		t.Errorf("the first number is %v, want %v", got, want)
	}
}

func writeProjector(t *testing.T, o ProjectorOptions) []byte {
	t.Helper()
	b, err := Projector(o)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if _, err := b.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestProjector checks the written file; testing/e2e tests that llama.cpp loads it and processes
// images with it.
func TestProjector(t *testing.T) {
	raw := writeProjector(t, ProjectorOptions{Seed: 3, Side: 48, Patch: 12, Output: 96})
	f, err := gguf.NewReader(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	side, _ := f.ArchUint("vision.image_size")
	if f.Kind() != "mmproj" || f.Architecture() != "clip" || side != 48 {
		t.Errorf("a %s of %q for images of %d", f.Kind(), f.Architecture(), side)
	}
	positions, ok := f.Tensor("v.position_embd.weight")
	if o := (ProjectorOptions{Side: 48, Patch: 12}); !ok || o.Tokens() != 16 || positions.Dims[1] != 16 {
		t.Errorf("%d tokens, positions %+v", o.Tokens(), positions)
	}
	if out, ok := f.Tensor("mm.2.weight"); !ok || out.Dims[1] != 96 {
		t.Errorf("the last layer is %+v", out)
	}
	if !bytes.Equal(raw, writeProjector(t, ProjectorOptions{Seed: 3, Side: 48, Patch: 12, Output: 96})) {
		t.Error("one seed gives two files")
	}
	if bytes.Equal(writeProjector(t, ProjectorOptions{Seed: 1}), writeProjector(t, ProjectorOptions{Seed: 2})) {
		t.Error("two seeds give the same weights")
	}
	for name, o := range map[string]ProjectorOptions{
		"negative": {Side: -1}, "patches": {Side: 30, Patch: 8}, "heads": {Width: 32, Heads: 5}, "one layer": {Layers: 1},
	} {
		if _, err := Projector(o); err == nil || o.Tokens() != 0 {
			t.Errorf("%s: error %v, %d tokens", name, err, o.Tokens())
		}
	}
}

// TestSparse checks that a model of 40 GB uses kilobytes of disk space.
func TestSparse(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "sparse.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := Catalogue()[4].Builder().WriteSparse(f)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Size() != n || n < 39<<30 || st.Blocks*512 > 1<<20 {
		t.Errorf("size %d of %d, %d bytes on disk", info.Size(), n, st.Blocks*512)
	}
	m, err := gguf.NewReader(f, n)
	if err != nil || m.Architecture() != "llama" {
		t.Errorf("the reader says %v", err)
	}
	if _, err := Catalogue()[4].Builder().WriteTo(&bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "sparse") {
		t.Errorf("written whole without data: %v", err)
	}
}

func TestBuilderErrors(t *testing.T) {
	b := New("llama")
	b.Uint("a", 1)
	b.Uint("a", 2)
	if _, err := b.WriteTo(&bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), `"a" was added twice`) {
		t.Errorf("key twice: %v", err)
	}
	b = New("llama")
	b.Tensor("t", gguf.Q4_K, nil, 100)
	if _, err := b.WriteSparse(nil); err == nil || !strings.Contains(err.Error(), "tensor t") {
		t.Errorf("row of 100 in blocks of 256: %v", err)
	}
}

// TestHalf compares the rounding with values of IEEE 754.
func TestHalf(t *testing.T) {
	for f, want := range map[float32]uint16{
		0: 0, 1: 0x3c00, -1: 0xbc00, 2: 0x4000, 0.5: 0x3800, 65504: 0x7bff, 65520: 0x7c00, 1e9: 0x7c00,
		0.1: 0x2e66, 1.0 / 3: 0x3555, 6.103515625e-05: 0x0400, 5.960464477539063e-08: 0x0001, 2.9e-08: 0x0000,
		1.00048828125: 0x3c00, 1.00146484375: 0x3c02, // ties go to even
		float32(math.Inf(-1)): 0xfc00,
	} {
		if got := half(f); got != want {
			t.Errorf("half(%v) = %#04x, want %#04x", f, got, want)
		}
	}
	if got := half(float32(math.NaN())); got&0x7c00 != 0x7c00 || got&0x3ff == 0 {
		t.Errorf("half(NaN) = %#04x", got)
	}
	// Every half rounds to itself.
	for h := range uint16(0x7c00) {
		if got := half(float32(fromHalf(h))); got != h {
			t.Fatalf("half of the number of %#04x is %#04x", h, got)
		}
	}
}
