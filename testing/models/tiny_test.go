package models

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// vocabulary writes a source tree that contains one small tokenizer.
func vocabulary(t *testing.T) string {
	t.Helper()
	source := t.TempDir()
	if err := os.Mkdir(filepath.Join(source, "models"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := ggufgen.New("llama")
	b.Text("tokenizer.ggml.model", "llama")
	b.Texts("tokenizer.ggml.tokens", []string{"<unk>", "<s>", "</s>", "a", "b"})
	if err := b.WriteFile(filepath.Join(source, "models", "ggml-vocab-toy.gguf")); err != nil {
		t.Fatal(err)
	}
	return source
}

func TestTiny(t *testing.T) {
	t.Setenv(EnvSource, vocabulary(t))
	path, err := Tiny(t.TempDir(), "toy", ggufgen.TinyOptions{Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	if f.Architecture() != "llama" || f.VocabSize() != 5 {
		t.Errorf("architecture %q, vocabulary of %d", f.Architecture(), f.VocabSize())
	}
}

func TestTinyErrors(t *testing.T) {
	t.Setenv(EnvSource, "")
	if _, err := Tiny(t.TempDir(), "toy", ggufgen.TinyOptions{}); !errors.Is(err, ErrNoSource) {
		t.Errorf("without a source: %v", err)
	}
	t.Setenv(EnvSource, vocabulary(t))
	if _, err := Tiny(t.TempDir(), "absent", ggufgen.TinyOptions{}); err == nil || !strings.Contains(err.Error(), EnvSource) {
		t.Errorf("an absent tokenizer: %v", err)
	}
	if _, err := Tiny(filepath.Join(t.TempDir(), "absent"), "toy", ggufgen.TinyOptions{}); err == nil {
		t.Error("no error for an absent directory")
	}
}
