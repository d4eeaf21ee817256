package models

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// EnvSource names the directory of a llama.cpp source tree.
const EnvSource = "GOROCM_LLAMA_SOURCE"

// ErrNoSource reports that the directory of the llama.cpp source is unknown.
var ErrNoSource = errors.New(EnvSource + " is not set: give it the directory of the llama.cpp source (mage test does)")

// Tiny writes a model of the llama architecture with random weights to dir and returns its path.
// It has the tokenizer that llama.cpp's own tests use under the given name: "llama-spm" is
// models/ggml-vocab-llama-spm.gguf of its source.
func Tiny(dir, tokenizer string, o ggufgen.TinyOptions) (path string, err error) {
	source := os.Getenv(EnvSource)
	if source == "" {
		return "", ErrNoSource
	}
	vocab, err := gguf.Open(filepath.Join(source, "models", "ggml-vocab-"+tokenizer+".gguf"))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w (does %s name the root of a llama.cpp source?)", err, EnvSource)
		}
		return "", fmt.Errorf("taking the tokenizer %s: %w", tokenizer, err)
	}
	defer func() { err = errors.Join(err, vocab.Close()) }()
	model, err := ggufgen.Tiny(vocab, o)
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, fmt.Sprintf("tiny-%s-%d.gguf", tokenizer, o.Seed))
	if err := model.WriteFile(path); err != nil {
		return "", fmt.Errorf("writing a tiny model: %w", err)
	}
	return path, nil
}
