package elfdep_test

import (
	"bytes"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

func BenchmarkSlim(b *testing.B) {
	data := largeFat().Bytes()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		b.StopTimer()
		path := write(b, "large.so", data)
		b.StartTimer()
		if _, err := elfdep.Slim(path, []gfx.Target{gfx.GFX1100, gfx.GFX1101}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScanStrings(b *testing.B) {
	data := bytes.Repeat([]byte("text of a library, with /usr/src/path and more\x00\x00\x12\x80"), 200_000)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		found, err := elfdep.ScanStrings(bytes.NewReader(data), []string{"/src", "/build"}, 0)
		if err != nil || len(found) != 0 {
			b.Fatal(found, err)
		}
	}
}

func BenchmarkReadBundles(b *testing.B) {
	data := largeFat().Sections[0].Data
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := elfdep.ReadBundles(bytes.NewReader(data), 0, int64(len(data))); err != nil {
			b.Fatal(err)
		}
	}
}
