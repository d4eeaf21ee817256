package gguf

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// maxLayers limits the length of per-layer arrays; llama.cpp's LLAMA_MAX_LAYERS is
// 512.
const maxLayers = 512

// Architecture is general.architecture ("llama", "qwen3", …), empty when absent.
func (f *File) Architecture() string { return f.text("general.architecture") }

// Name is general.name, empty when absent.
func (f *File) Name() string { return f.text("general.name") }

// Kind is general.type: "model", "adapter", "mmproj", "imatrix" or another
// word; "model" when absent.
func (f *File) Kind() string {
	if k := f.text("general.type"); k != "" {
		return k
	}
	return "model"
}

// SizeLabel is general.size_label ("8B", "8x7B"), empty when absent.
func (f *File) SizeLabel() string { return f.text("general.size_label") }

func (f *File) text(key string) string {
	s, err := f.Text(key)
	if err != nil {
		return ""
	}
	return s
}

// ArchKey prefixes a key with the architecture: "block_count" becomes
// "llama.block_count".
func (f *File) ArchKey(key string) string { return f.Architecture() + "." + key }

// ArchUint returns the integer of an architecture key, and whether the key exists.
// For an array it returns the largest element.
func (f *File) ArchUint(key string) (uint64, bool) {
	v, ok := f.Lookup(f.ArchKey(key))
	if !ok {
		return 0, false
	}
	if u, ok := v.Uint(); ok {
		return u, true
	}
	per, err := f.ArchUints(key)
	if err != nil || len(per) == 0 {
		return 0, false
	}
	return slices.Max(per), true
}

// ArchUints returns the elements of an array with a value per layer, or the single
// value of a scalar. The error wraps ErrNotFound if the key does not exist.
func (f *File) ArchUints(key string) ([]uint64, error) {
	key = f.ArchKey(key)
	v, ok := f.Lookup(key)
	if !ok {
		return nil, fmt.Errorf("%w: %.80q", ErrNotFound, key)
	}
	if a, ok := v.Array(); ok {
		out, err := a.Uints(maxLayers)
		if err != nil {
			return nil, fmt.Errorf("%.80q: %w", key, err)
		}
		return out, nil
	}
	u, err := f.Uint(key)
	if err != nil {
		return nil, err
	}
	return []uint64{u}, nil
}

func (f *File) archInt(key string) int {
	u, ok := f.ArchUint(key)
	if !ok || u > min(1<<40, math.MaxInt) {
		return 0
	}
	return int(u)
}

// BlockCount is the number of layers, 0 when not stated.
func (f *File) BlockCount() int { return f.archInt("block_count") }

// EmbeddingLength is the width of the hidden state, 0 when not stated.
func (f *File) EmbeddingLength() int { return f.archInt("embedding_length") }

// ContextLength is the trained context in tokens, 0 when not stated.
func (f *File) ContextLength() int { return f.archInt("context_length") }

// HeadCount is the number of attention heads (the largest over the layers).
func (f *File) HeadCount() int { return f.archInt("attention.head_count") }

// ExpertCount is the number of experts of a mixture, 0 for a dense model.
func (f *File) ExpertCount() int { return f.archInt("expert_count") }

// VocabSize is the number of tokens: the tokenizer's list, else the stated
// size, else the rows of the token embedding.
func (f *File) VocabSize() int {
	if a, err := f.Array("tokenizer.ggml.tokens"); err == nil {
		return int(a.Len())
	}
	if n := f.archInt("vocab_size"); n > 0 {
		return n
	}
	if t, ok := f.Tensor("token_embd.weight"); ok {
		return int(t.Dims[1])
	}
	return 0
}

// Parameters is the number of weights: the elements of all tensors.
func (f *File) Parameters() uint64 {
	var n uint64
	for i := range f.tensors {
		n += f.tensors[i].Elements()
	}
	return n
}

// TensorBytes is the size of all tensor data without padding.
func (f *File) TensorBytes() uint64 {
	var n uint64
	for i := range f.tensors {
		n += f.tensors[i].Bytes
	}
	return n
}

// ChatTemplate is the model's default chat template (Jinja), empty when none.
func (f *File) ChatTemplate() string { return f.text("tokenizer.chat_template") }

// Tokenizer describes a model's tokenizer.
type Tokenizer struct {
	Model string `json:"model"` // as stored: "llama", "gpt2", "bert", "t5", "gemma4", …
	Kind  string `json:"kind"`  // "SPM", "BPE", "WPM", "UGM", "RWKV", "none" or "" when unknown
	Pre   string `json:"pre,omitempty"`
	Size  int    `json:"size"`
}

// Tokenizer returns a description of the tokenizer, or ErrNotFound if the file has
// none.
func (f *File) Tokenizer() (Tokenizer, error) {
	model, err := f.Text("tokenizer.ggml.model")
	if err != nil {
		return Tokenizer{}, fmt.Errorf("tokenizer: %w", err)
	}
	t := Tokenizer{Model: model, Pre: f.text("tokenizer.ggml.pre"), Size: f.VocabSize()}
	switch model {
	case "llama":
		t.Kind = "SPM"
	case "gpt2", "gemma4", "hybriddna", "whitespace":
		t.Kind = "BPE"
	case "bert":
		t.Kind = "WPM"
	case "t5":
		t.Kind = "UGM"
	case "rwkv":
		t.Kind = "RWKV"
	case "plamo2":
		t.Kind = "PLaMo2"
	case "no_vocab", "none":
		t.Kind = "none"
	}
	return t, nil
}

// SpecialToken returns the id of a special token by its role ("bos", "eos",
// "eot", "unknown", "padding", …), and whether the file names one.
func (f *File) SpecialToken(role string) (int32, bool, error) {
	u, err := f.Uint("tokenizer.ggml." + role + "_token_id")
	if errors.Is(err, ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	if u >= uint64(f.VocabSize()) {
		return 0, false, fmt.Errorf("%w: %s token %d in a vocabulary of %d", ErrMalformed, role, u, f.VocabSize())
	}
	return int32(u), true, nil
}
