package ggufgen

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// TinyOptions describe a tiny model; zero fields have the default in the comment.
type TinyOptions struct {
	Layers      int             // 2
	Width       int             // of the hidden state: 64
	Heads       int             // attention heads: 4
	KVHeads     int             // heads of keys and values: 2
	Feed        int             // width of the feed-forward part: 128
	Context     int             // 2048
	Seed        uint64          // of the weights
	Loud        int32           // a token that is sampled after about every other prompt; 0: none
	Type        gguf.TensorType // of matrices: F32 (which is the zero value), F16 or one of QuantisedTypes
	Dequantised bool            // matrices have the numbers of Type, in F32
	Name        string          // general.name: "tiny"
	// Norm has the weights of the norms before attention and the feed-forward part: 1. With random weights, attention is so
	// sharp that it amplifies the rounding of its scores, and each feed-forward part is much larger than what it is added
	// to; with less, neither is.
	Norm float32
	// Template is the chat template, in place of the vocabulary's.
	Template string
}

func (o *TinyOptions) defaults() error {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	set(&o.Layers, 2)
	set(&o.Width, 64)
	set(&o.Heads, 4)
	set(&o.KVHeads, 2)
	set(&o.Feed, 128)
	set(&o.Context, 2048)
	if o.Norm == 0 {
		o.Norm = 1
	}
	if o.Name == "" {
		o.Name = "tiny"
	}
	switch {
	case o.Layers < 1 || o.Width < 1 || o.Heads < 1 || o.KVHeads < 1 || o.Feed < 1 || o.Context < 1:
		return fmt.Errorf("tiny model: sizes must be positive: %+v", *o)
	case o.Norm < 0:
		return fmt.Errorf("tiny model: the norms are %v", o.Norm)
	case o.Width%o.Heads != 0 || o.Heads%o.KVHeads != 0 || o.Width/o.Heads%2 != 0:
		return fmt.Errorf("tiny model: %d wide, %d heads and %d key heads do not divide evenly", o.Width, o.Heads, o.KVHeads)
	case o.Type != gguf.F16 && o.Type != gguf.F32 && blockScales(o.Type) == nil:
		return fmt.Errorf("tiny model: weights of the type %s are not supported", o.Type)
	case o.Loud != 0 && o.Type != gguf.F32:
		return fmt.Errorf("tiny model: a loud token needs weights in F32, not %s", o.Type)
	}
	return nil
}

// stored returns the type of matrices in the file.
func (o *TinyOptions) stored() gguf.TensorType {
	if o.Dequantised {
		return gguf.F32
	}
	return o.Type
}

// Tiny builds a small model of the llama architecture with random weights and
// the tokenizer of vocab, such as one of llama.cpp's models/ggml-vocab-*.gguf.
// vocab must stay open until the builder has been written.
func Tiny(vocab *gguf.File, o TinyOptions) (*Builder, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	tok, err := vocab.Tokenizer()
	if err != nil {
		return nil, fmt.Errorf("tiny model: %w", err)
	}
	if tok.Size == 0 {
		return nil, fmt.Errorf("tiny model: the vocabulary of %q is empty", vocab.Name())
	}
	if o.Loud < 0 || int(o.Loud) >= tok.Size {
		return nil, fmt.Errorf("tiny model: token %d is outside a vocabulary of %d", o.Loud, tok.Size)
	}
	b := New("llama")
	b.Text("general.type", "model")
	b.Text("general.name", o.Name)
	if number, ok := map[gguf.TensorType]uint32{gguf.F32: 0, gguf.F16: 1}[o.stored()]; ok {
		b.Uint("general.file_type", number)
	}
	b.Uint("llama.block_count", uint32(o.Layers))
	b.Uint("llama.context_length", uint32(o.Context))
	b.Uint("llama.embedding_length", uint32(o.Width))
	b.Uint("llama.feed_forward_length", uint32(o.Feed))
	b.Uint("llama.attention.head_count", uint32(o.Heads))
	b.Uint("llama.attention.head_count_kv", uint32(o.KVHeads))
	b.Float("llama.attention.layer_norm_rms_epsilon", 1e-5)
	b.Uint("llama.rope.dimension_count", uint32(o.Width/o.Heads))
	b.Uint("llama.vocab_size", uint32(tok.Size))
	for key, v := range vocab.Metadata() {
		if strings.HasPrefix(key, "tokenizer.") && (o.Template == "" || key != chatTemplate) {
			b.Copy(key, v)
		}
	}
	if o.Template != "" {
		b.Text(chatTemplate, o.Template)
	}
	b.tinyTensors(o, uint64(tok.Size))
	return b, b.err
}

const (
	chatTemplate = "tokenizer.chat_template"
	embedding    = "token_embd.weight"
	// loudness is the factor by which the weights of a loud token are larger, and so is its
	// logit, with either sign. No other logit is close to it.
	loudness = 30
)

// tinyTensors adds the weights. The output layer is the token embedding, which
// keeps a model with a large vocabulary small.
func (b *Builder) tinyTensors(o TinyOptions, vocab uint64) {
	// Each tensor has its own stream of random numbers, so that a changed shape does not
	// change all other tensors.
	stream := uint64(0)
	matrix := func(name string, in, out uint64) {
		stream++
		r := rand.New(rand.NewPCG(o.Seed, stream))
		fill := normalF32(r, 0.1)
		switch o.Type {
		case gguf.F32:
		case gguf.F16:
			fill = normalF16(r, 0.1)
		default:
			fill = randomBlocks(r, o.Type)
		}
		if name == embedding && o.Loud != 0 {
			row := 4 * in
			fill = amplified(fill, uint64(o.Loud)*row, row, loudness)
		}
		if o.stored() != o.Type {
			fill = dequantised(fill, o.Type)
		}
		b.Tensor(name, o.stored(), fill, in, out)
	}
	w, f := uint64(o.Width), uint64(o.Feed)
	kv := w / uint64(o.Heads) * uint64(o.KVHeads)
	matrix(embedding, w, vocab)
	for i := range o.Layers {
		p := fmt.Sprintf("blk.%d.", i)
		b.Tensor(p+"attn_norm.weight", gguf.F32, constant(o.Norm), w)
		matrix(p+"attn_q.weight", w, w)
		matrix(p+"attn_k.weight", w, kv)
		matrix(p+"attn_v.weight", w, kv)
		matrix(p+"attn_output.weight", w, w)
		b.Tensor(p+"ffn_norm.weight", gguf.F32, constant(o.Norm), w)
		matrix(p+"ffn_gate.weight", w, f)
		matrix(p+"ffn_up.weight", w, f)
		matrix(p+"ffn_down.weight", f, w)
	}
	b.Tensor("output_norm.weight", gguf.F32, ones, w)
}

// LargeVocabulary has the shapes of an 8B model and an artificial vocabulary of n tokens and as
// many merges: the metadata of a current model (5 MB for 150,000 tokens). It is written as a
// sparse file to measure readers.
func LargeVocabulary(n int) *Builder {
	b := qwen3x8b(Q4KM).b
	b.Text("general.name", "large-vocabulary")
	tokens := make([]string, n)
	merges := make([]string, n)
	types := make([]uint32, n)
	for i := range tokens {
		tokens[i] = strings.Repeat("x", 1+i%11)
		merges[i] = fmt.Sprintf("%s %d", tokens[i], i%1000)
		types[i] = 1
	}
	b.Texts("tokenizer.ggml.tokens", tokens)
	b.Uints("tokenizer.ggml.token_type", types)
	b.Texts("tokenizer.ggml.merges", merges)
	return b
}
