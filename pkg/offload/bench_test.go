package offload_test

import (
	"bytes"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

func BenchmarkSlim(b *testing.B) {
	data := largeFat().Bytes()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		b.StopTimer()
		path := elfgen.WriteFile(b, "large.so", data)
		b.StartTimer()
		if _, err := offload.Slim(path, []gfx.Target{gfx.GFX1100, gfx.GFX1101}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadBundles(b *testing.B) {
	data := largeFat().Sections[0].Data
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := offload.ReadBundles(bytes.NewReader(data), 0, int64(len(data))); err != nil {
			b.Fatal(err)
		}
	}
}
