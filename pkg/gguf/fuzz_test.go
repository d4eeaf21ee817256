package gguf_test

import (
	"bytes"
	"errors"
	"runtime/metrics"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// heldBytes returns the number of bytes that this process has allocated so far.
func heldBytes() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// FuzzReader checks that arbitrary bytes are accepted or rejected with a known error, that
// the memory is proportional to their number, and that accepted files are consistent.
func FuzzReader(f *testing.F) {
	for _, c := range crashers() {
		f.Add(c.file.b)
	}
	f.Add(sample().b)
	f.Add(part(0, 2, 2, "a").b)
	f.Add(file(2, 0, 0).b)
	conditions := []error{gguf.ErrNotGGUF, gguf.ErrVersion, gguf.ErrBigEndian, gguf.ErrTruncated, gguf.ErrMalformed}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := heldBytes()
		m, err := gguf.NewReader(bytes.NewReader(b), int64(len(b)))
		// A pair of 14 bytes becomes an entry, an index and a part of an arena; slices
		// double when they grow.
		if grown, most := heldBytes()-before, uint64(1<<20+64*len(b)); grown > most {
			t.Fatalf("%d bytes allocated for %d", grown, len(b))
		}
		if err != nil {
			known := false
			for _, c := range conditions {
				known = known || errors.Is(err, c)
			}
			if !known {
				t.Fatalf("unknown condition: %v", err)
			}
			return
		}
		visit(t, m, b)
	})
}

// visit calls every method of a file.
func visit(t *testing.T, m *gguf.File, b []byte) {
	t.Helper()
	var arrays int64
	for key, v := range m.Metadata() {
		if found, ok := m.Lookup(key); !ok || found.Type() != v.Type() {
			t.Fatalf("key %q is lost", key)
		}
		_ = v.String()
		a, ok := v.Array()
		if !ok {
			continue
		}
		arrays += a.Bytes()
		n := uint64(0)
		if a.Elem() == gguf.String {
			for _, err := range a.Strings() {
				if err != nil {
					t.Fatalf("%s: %v", key, err)
				}
				n++
			}
		} else {
			for _, err := range a.Values() {
				if err != nil {
					t.Fatalf("%s: %v", key, err)
				}
				n++
			}
		}
		if n != a.Len() {
			t.Fatalf("%s: %d elements of %d", key, n, a.Len())
		}
	}
	if arrays > int64(len(b)) {
		t.Fatalf("arrays of %d bytes in %d", arrays, len(b))
	}
	end := m.DataOffset()
	for _, e := range m.Tensors() {
		if e.Offset < end || e.Offset+int64(e.Bytes) > int64(len(b)) {
			t.Fatalf("tensor %q at %d of %d bytes lies outside", e.Name, e.Offset, e.Bytes)
		}
		end = e.Offset + int64(e.Bytes)
	}
	_, _ = m.Tokenizer()
	_, _ = m.ArchUints("attention.head_count_kv")
	_, _, _ = m.SpecialToken("eos")
	_ = []any{
		m.BlockCount(), m.EmbeddingLength(), m.ContextLength(), m.VocabSize(), m.Quantisation(), m.QuantBits(),
		m.QuantGroup(), m.Parameters(), m.ChatTemplate(), m.BitsPerWeight(), m.ExpertCount(), m.HeadCount(),
	}
}

// FuzzArrays decodes a metadata array of arbitrary bytes, so that the fuzzer reaches the
// element decoders without a valid header.
func FuzzArrays(f *testing.F) {
	f.Add(uint32(gguf.String), uint64(2), []byte("\x01\x00\x00\x00\x00\x00\x00\x00a\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add(uint32(gguf.Float64), uint64(1), make([]byte, 8))
	f.Add(uint32(gguf.ArrayOf), uint64(1), make([]byte, 12))
	f.Add(uint32(gguf.Bool), uint64(1<<63), []byte{1})
	f.Fuzz(func(t *testing.T, elem uint32, n uint64, b []byte) {
		r := file(3, 0, 1).key("a", gguf.ArrayOf).u32(elem).u64(n).bytes(string(b))
		m, err := r.read()
		if err == nil {
			visit(t, m, r.b)
		}
	})
}
