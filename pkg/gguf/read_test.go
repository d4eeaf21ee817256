package gguf_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// sample is a small file with a value of every type and two tensors.
func sample() *raw {
	r := file(3, 2, 20)
	r.key("general.architecture", gguf.String).text("llama")
	r.key("general.name", gguf.String).text("sample")
	r.key("u8", gguf.Uint8).u8(200)
	r.key("i8", gguf.Int8).u8(0xfe)
	r.key("u16", gguf.Uint16).u8(0x34).u8(0x12)
	r.key("i16", gguf.Int16).u8(0xfe).u8(0xff)
	r.key("u32", gguf.Uint32).u32(math.MaxUint32)
	r.key("i32", gguf.Int32).u32(0xfffffffe)
	r.key("f32", gguf.Float32).u32(math.Float32bits(1.5))
	r.key("bool", gguf.Bool).u8(7)
	r.key("u64", gguf.Uint64).u64(math.MaxUint64)
	r.key("i64", gguf.Int64).u64(math.MaxUint64 - 1)
	r.key("f64", gguf.Float64).u64(math.Float64bits(-2.25))
	r.key("llama.block_count", gguf.Uint32).u32(2)
	r.key("llama.attention.head_count_kv", gguf.ArrayOf).u32(uint32(gguf.Int32)).u64(3).u32(8).u32(0).u32(2)
	r.key("llama.signed", gguf.ArrayOf).u32(uint32(gguf.Int8)).u64(2).u8(1).u8(0xff)
	r.key("tokenizer.ggml.model", gguf.String).text("gpt2")
	r.key("tokenizer.ggml.tokens", gguf.ArrayOf).u32(uint32(gguf.String)).u64(3).text("a").text("").text("long token")
	r.key("tokenizer.ggml.eos_token_id", gguf.Uint32).u32(2)
	r.key("tokenizer.ggml.bos_token_id", gguf.Uint32).u32(3)
	r.tensor("token_embd.weight", gguf.Q8_0, 0, 32, 3)
	r.tensor("output_norm.weight", gguf.F32, 128, 32)
	return r.data(128 + 128)
}

func TestValues(t *testing.T) {
	f := sample().mustRead(t)
	for _, c := range []struct {
		key   string
		typ   gguf.ValueType
		uint  uint64
		uOK   bool
		int   int64
		iOK   bool
		float float64
		fOK   bool
		shown string
	}{
		{"u8", gguf.Uint8, 200, true, 200, true, 200, true, "200"},
		{"i8", gguf.Int8, 0, false, -2, true, -2, true, "-2"},
		{"u16", gguf.Uint16, 0x1234, true, 0x1234, true, 0x1234, true, "4660"},
		{"i16", gguf.Int16, 0, false, -2, true, -2, true, "-2"},
		{"u32", gguf.Uint32, math.MaxUint32, true, math.MaxUint32, true, math.MaxUint32, true, "4294967295"},
		{"i32", gguf.Int32, 0, false, -2, true, -2, true, "-2"},
		{"f32", gguf.Float32, 0, false, 0, false, 1.5, true, "1.5"},
		{"bool", gguf.Bool, 1, true, 1, true, 1, true, "true"},
		{"u64", gguf.Uint64, math.MaxUint64, true, 0, false, 0, false, "18446744073709551615"},
		{"i64", gguf.Int64, 0, false, -2, true, -2, true, "-2"},
		{"f64", gguf.Float64, 0, false, 0, false, -2.25, true, "-2.25"},
		{"general.name", gguf.String, 0, false, 0, false, 0, false, "sample"},
		{"tokenizer.ggml.tokens", gguf.ArrayOf, 0, false, 0, false, 0, false, "[3]string"},
	} {
		v, ok := f.Lookup(c.key)
		if !ok || v.Type() != c.typ || v.String() != c.shown {
			t.Errorf("%s: %v %s %q", c.key, ok, v.Type(), v)
		}
		if u, ok := v.Uint(); ok != c.uOK || (ok && u != c.uint) {
			t.Errorf("%s: Uint %d, %v", c.key, u, ok)
		}
		if i, ok := v.Int(); ok != c.iOK || (ok && i != c.int) {
			t.Errorf("%s: Int %d, %v", c.key, i, ok)
		}
		if x, ok := v.Float(); ok != c.fOK || (ok && x != c.float) {
			t.Errorf("%s: Float %v, %v", c.key, x, ok)
		}
	}
	if _, err := f.Uint("absent"); !errors.Is(err, gguf.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
	if _, err := f.Text("u8"); !errors.Is(err, gguf.ErrType) {
		t.Errorf("text of a number: %v", err)
	}
	var keys []string
	for k := range f.Metadata() {
		keys = append(keys, k)
	}
	if len(keys) != 20 || keys[0] != "general.architecture" || keys[19] != "tokenizer.ggml.bos_token_id" {
		t.Errorf("keys %v", keys)
	}
}

func TestArrays(t *testing.T) {
	f := sample().mustRead(t)
	a, err := f.Array("tokenizer.ggml.tokens")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // an array can be read repeatedly
		var got []string
		for s, err := range a.Strings() {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, s)
		}
		if !slices.Equal(got, []string{"a", "", "long token"}) {
			t.Errorf("tokens %q", got)
		}
	}
	for _, err := range a.Values() {
		if !errors.Is(err, gguf.ErrType) {
			t.Errorf("numbers of strings: %v", err)
		}
	}
	if b, err := io.ReadAll(a.Raw()); err != nil || len(b) != 3*8+11 {
		t.Errorf("raw %d bytes, %v", len(b), err)
	}
	if v, err := f.ArchUints("attention.head_count_kv"); err != nil || !slices.Equal(v, []uint64{8, 0, 2}) {
		t.Errorf("per layer %v, %v", v, err)
	}
	if v, ok := f.ArchUint("attention.head_count_kv"); !ok || v != 8 {
		t.Errorf("largest %d, %v", v, ok)
	}
	if _, err := f.ArchUints("signed"); !errors.Is(err, gguf.ErrType) {
		t.Errorf("negative counts: %v", err)
	}
	if v, err := f.ArchUints("block_count"); err != nil || !slices.Equal(v, []uint64{2}) {
		t.Errorf("scalar per layer %v, %v", v, err)
	}
	if _, err := a.Uints(2); !errors.Is(err, gguf.ErrMalformed) {
		t.Errorf("array over the limit: %v", err)
	}
}

func TestTensors(t *testing.T) {
	f := sample().mustRead(t)
	e, ok := f.Tensor("token_embd.weight")
	if !ok || e.Type != gguf.Q8_0 || e.Bytes != 3*34 || e.Rank != 2 || e.Elements() != 96 || e.Offset != f.DataOffset() {
		t.Errorf("embedding %+v", e)
	}
	n, ok := f.Tensor("output_norm.weight")
	if !ok || n.Bytes != 128 || n.Offset != f.DataOffset()+128 {
		t.Errorf("norm %+v", n)
	}
	if f.Parameters() != 128 || f.TensorBytes() != 3*34+128 || len(f.Tensors()) != 2 || f.Alignment() != 32 {
		t.Errorf("parameters %d, bytes %d", f.Parameters(), f.TensorBytes())
	}
	if _, ok := f.Tensor("absent"); ok {
		t.Error("found an absent tensor")
	}
}

// TestAlignment checks that general.alignment moves the data.
func TestAlignment(t *testing.T) {
	r := file(2, 2, 1).key("general.alignment", gguf.Uint32).u32(128)
	r.tensor("a", gguf.F32, 0, 1).tensor("b", gguf.I8, 128, 0)
	r.b = append(r.b, make([]byte, 256-len(r.b)%128+128)...)
	f := r.mustRead(t)
	if b, _ := f.Tensor("b"); f.Version() != 2 || f.Alignment() != 128 || f.DataOffset()%128 != 0 || b.Bytes != 0 {
		t.Errorf("version %d, alignment %d, data at %d", f.Version(), f.Alignment(), f.DataOffset())
	}
}

// TestTypeSizes compares the bytes of a row with ggml's block structures.
func TestTypeSizes(t *testing.T) {
	half, scale := uint64(2), uint64(12) // ggml_half, K_SCALE_SIZE
	for typ, want := range map[gguf.TensorType][2]uint64{
		gguf.F32: {1, 4}, gguf.F16: {1, 2}, gguf.BF16: {1, 2}, gguf.F64: {1, 8},
		gguf.I8: {1, 1}, gguf.I16: {1, 2}, gguf.I32: {1, 4}, gguf.I64: {1, 8},
		gguf.Q1_0: {128, half + 128/8}, gguf.Q2_0: {64, half + 64/4},
		gguf.Q4_0: {32, half + 16}, gguf.Q4_1: {32, 2*half + 16},
		gguf.Q5_0: {32, half + 4 + 16}, gguf.Q5_1: {32, 2*half + 4 + 16},
		gguf.Q8_0: {32, half + 32}, gguf.Q8_1: {32, 2*half + 32},
		gguf.Q2_K: {256, 2*half + 16 + 64}, gguf.Q3_K: {256, half + 64 + 32 + 12},
		gguf.Q4_K: {256, 2*half + scale + 128}, gguf.Q5_K: {256, 2*half + scale + 128 + 32},
		gguf.Q6_K: {256, half + 16 + 3*64}, gguf.Q8_K: {256, 4 + 256 + 16*2},
		gguf.IQ2_XXS: {256, half + 32*2}, gguf.IQ2_XS: {256, half + 32*2 + 8}, gguf.IQ2_S: {256, half + 64 + 16},
		gguf.IQ3_XXS: {256, half + 3*32}, gguf.IQ3_S: {256, half + 13*8 + 4},
		gguf.IQ1_S: {256, half + 32 + 16}, gguf.IQ1_M: {256, 32 + 16 + 8},
		gguf.IQ4_NL: {32, half + 16}, gguf.IQ4_XS: {256, half + 2 + 4 + 128},
		gguf.TQ1_0: {256, half + 4 + (256-4*4)/5}, gguf.TQ2_0: {256, half + 64},
		gguf.MXFP4: {32, 1 + 16}, gguf.NVFP4: {64, 4 + 32},
	} {
		if typ.BlockElements() != want[0] || typ.BlockBytes() != want[1] || !typ.Known() {
			t.Errorf("%s: %d elements in %d bytes, want %v", typ, typ.BlockElements(), typ.BlockBytes(), want)
		}
		if b, err := typ.RowBytes(want[0] * 10); err != nil || b != want[1]*10 {
			t.Errorf("%s: row %d, %v", typ, b, err)
		}
	}
	known := 0
	for n := range gguf.TensorType(1000) {
		if n.Known() {
			known++
		}
	}
	if known != 35 {
		t.Errorf("%d known types, 35 in ggml", known)
	}
	for _, n := range []uint64{math.MaxUint64, math.MaxUint64 - 255} {
		if _, err := gguf.Q8_K.RowBytes(n); err == nil {
			t.Errorf("a row of %d elements did not overflow", n)
		}
	}
}

// TestErrorsAreTruncated checks that errors quote and truncate the contents of a file,
// because they are printed to terminals.
func TestErrorsAreTruncated(t *testing.T) {
	long := strings.Repeat("x\x1b[2J\n", 9000)
	for name, err := range map[string]error{
		"unknown type": second(file(3, 0, 1).key(long, 13).u64(0).read()),
		"twice":        second(file(3, 0, 2).key(long, gguf.Uint8).u8(1).key(long, gguf.Uint8).u8(1).read()),
		"alignment":    second(file(3, 0, 1).key("general.alignment", gguf.String).text(long).read()),
		"value":        second(file(3, 0, 1).key("a", gguf.String).text(long).mustRead(t).Uint("a")),
		"wrong key":    second(file(3, 0, 1).key(long, gguf.String).text("a").mustRead(t).Uint(long)),
		"no key":       second(file(3, 0, 1).key("general.architecture", gguf.String).text(long).mustRead(t).ArchUints("a")),
		"layers": second(file(3, 0, 2).key("general.architecture", gguf.String).text(long).
			key(long+".a", gguf.ArrayOf).u32(uint32(gguf.Int8)).u64(1).u8(0xff).mustRead(t).ArchUints("a")),
	} {
		if err == nil || len(err.Error()) > 600 || strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("%s: %.200q", name, fmt.Sprint(err))
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestLongArrayElement checks that a single string of an array cannot use up the memory.
func TestLongArrayElement(t *testing.T) {
	const most = 16 << 20
	for _, n := range []int{most, most + 1} {
		r := file(3, 0, 1).key("a", gguf.ArrayOf).u32(uint32(gguf.String)).u64(1).text(strings.Repeat("x", n))
		a, err := r.mustRead(t).Array("a")
		if err != nil {
			t.Fatal(err)
		}
		for s, err := range a.Strings() {
			if n <= most && (err != nil || len(s) != n) || n > most && !errors.Is(err, gguf.ErrMalformed) {
				t.Errorf("%d bytes: got %d, %v", n, len(s), err)
			}
		}
	}
}
