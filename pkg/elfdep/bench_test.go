package elfdep_test

import (
	"bytes"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
)

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
