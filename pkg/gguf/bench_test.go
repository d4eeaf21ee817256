package gguf_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// largeVocabulary writes a file with a vocabulary of 151936 tokens.
func largeVocabulary(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "large.gguf")
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := ggufgen.LargeVocabulary(151936).WriteSparse(f); err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
	return path
}

// BenchmarkOpen reads the metadata and the tensor table of a model with a large vocabulary,
// and the facts that a plan needs.
func BenchmarkOpen(b *testing.B) {
	path := largeVocabulary(b)
	b.ReportAllocs()
	for b.Loop() {
		f, err := gguf.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		if f.VocabSize() != 151936 || f.BlockCount() != 36 || f.Quantisation() != "Q4_K_M" || f.Parameters() == 0 {
			b.Fatal("wrong facts")
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBareRead reads the same number of bytes without parsing them.
func BenchmarkBareRead(b *testing.B) {
	path := largeVocabulary(b)
	m, err := gguf.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	n := m.DataOffset()
	if err := m.Close(); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 256<<10)
	b.SetBytes(n)
	for b.Loop() {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{io.LimitReader(f, n)}, buf); err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTokens reads every token of the vocabulary, which Open has not decoded.
func BenchmarkTokens(b *testing.B) {
	f, err := gguf.Open(largeVocabulary(b))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	a, err := f.Array("tokenizer.ggml.tokens")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range a.Strings() {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 151936 {
			b.Fatal(n)
		}
	}
}
