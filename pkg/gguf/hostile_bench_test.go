package gguf_test

import (
	"bytes"
	"fmt"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// manyEntries is a file with n metadata entries.
func manyEntries(n int) *raw {
	r := file(3, 0, uint64(n))
	for i := range n {
		r.key(fmt.Sprintf("key.%d", i), gguf.String).text("value")
	}
	return r
}

// manyTensors is a file with n tensors of 32 bytes.
func manyTensors(n int) *raw {
	r := file(3, uint64(n), 0)
	for i := range n {
		r.tensor(fmt.Sprintf("blk.%d.weight", i), gguf.F32, uint64(i)*32, 8)
	}
	return r.data(n * 32)
}

// longString is a file with one string of n bytes.
func longString(n int) *raw {
	return file(3, 0, 1).key("tokenizer.huggingface.json", gguf.String).text(string(bytes.Repeat([]byte("x"), n)))
}

// BenchmarkHostile reads headers that a model never has. What each costs in time and
// memory must not depend on what the file claims.
func BenchmarkHostile(b *testing.B) {
	for name, r := range map[string]*raw{
		"most entries": manyEntries(1 << 16), "most tensors": manyTensors(1 << 17),
		"million entries": manyEntries(1_000_000), "million tensors": manyTensors(1_000_000), "string of 128 MiB": longString(128 << 20),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if f, err := r.read(); err == nil {
					_ = f.Architecture()
				}
			}
		})
	}
}
