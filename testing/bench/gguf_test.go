package bench

import (
	"os"
	"path/filepath"
	"testing"

	parser "github.com/gpustack/gguf-parser-go"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

const vocabulary = 151936

// largeModel writes the metadata of a current 8B model, without tensor data.
func largeModel(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "large.gguf")
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := ggufgen.LargeVocabulary(vocabulary).WriteSparse(f); err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
	return path
}

// TestReadersAgree checks that both readers read the same model, so that the comparison
// is fair.
func TestReadersAgree(t *testing.T) {
	path := largeModel(t)
	ours, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	theirs, err := parser.ParseGGUFFile(path, parser.SkipLargeMetadata(), parser.UseMMap())
	if err != nil {
		t.Fatal(err)
	}
	meta := theirs.Metadata()
	if uint64(meta.Parameters) != ours.Parameters() || meta.Architecture != ours.Architecture() || len(theirs.TensorInfos) != len(ours.Tensors()) {
		t.Errorf("parameters %d and %d, tensors %d and %d", meta.Parameters, ours.Parameters(), len(theirs.TensorInfos), len(ours.Tensors()))
	}
	if n := theirs.Tokenizer().TokensLength; n != vocabulary || ours.VocabSize() != vocabulary {
		t.Errorf("vocabulary %d and %d", n, ours.VocabSize())
	}
}

// BenchmarkGGUF opens the model and reads the metadata and the tensor table.
func BenchmarkGGUF(b *testing.B) {
	path := largeModel(b)
	b.Run("go-rocm", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f, err := gguf.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			if err := f.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, c := range []struct {
		name    string
		options []parser.GGUFReadOption
	}{
		{"gguf-parser-go/skip-large+mmap", []parser.GGUFReadOption{parser.SkipLargeMetadata(), parser.UseMMap()}},
		{"gguf-parser-go/skip-large", []parser.GGUFReadOption{parser.SkipLargeMetadata()}},
		{"gguf-parser-go/default", nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := parser.ParseGGUFFile(path, c.options...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
