package ggufgen

import (
	"fmt"
	"math/rand/v2"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// ProjectorOptions describe a tiny projector; zero fields have the default in the comment.
type ProjectorOptions struct {
	Side   int    // of the square that every image becomes, in pixels: 32
	Patch  int    // side of a patch, in pixels: 8
	Layers int    // of the encoder, the last of which a LLaVA projector leaves out: 2
	Width  int    // of the encoder: 32
	Heads  int    // attention heads: 2
	Feed   int    // width of the feed-forward part: 64
	Output int    // width of the language model: 64, as TinyOptions has it
	Seed   uint64 // of the weights
	Name   string // general.name: "tiny-mmproj"
}

// Tokens returns the number of tokens of an image in the language model.
func (o ProjectorOptions) Tokens() int {
	if o.defaults() != nil {
		return 0
	}
	return o.Side / o.Patch * (o.Side / o.Patch)
}

func (o *ProjectorOptions) defaults() error {
	for p, v := range map[*int]int{&o.Side: 32, &o.Patch: 8, &o.Layers: 2, &o.Width: 32, &o.Heads: 2, &o.Feed: 64, &o.Output: 64} {
		if *p == 0 {
			*p = v
		}
		if *p < 0 {
			return fmt.Errorf("tiny projector: sizes must be positive: %+v", *o)
		}
	}
	if o.Name == "" {
		o.Name = "tiny-mmproj"
	}
	if o.Side%o.Patch != 0 || o.Width%o.Heads != 0 || o.Layers < 2 {
		return fmt.Errorf("tiny projector: %d pixels in patches of %d, %d wide with %d heads do not divide evenly, or fewer than 2 layers (%d)",
			o.Side, o.Patch, o.Width, o.Heads, o.Layers)
	}
	return nil
}

// Projector builds a small projector for images with random weights: a vision transformer
// without a class token, followed by LLaVA's two-layer perceptron, the simplest projector
// that llama.cpp v0.5.0 loads (type "mlp" in tools/mtmd/clip.cpp). It needs no special tokens
// around an image.
func Projector(o ProjectorOptions) (*Builder, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	b := New("clip")
	b.Text("general.type", "mmproj")
	b.Text("general.name", o.Name)
	b.Uint("general.file_type", 0)
	b.Text("clip.projector_type", "mlp")
	b.Bool("clip.has_vision_encoder", true)
	b.Bool("clip.use_gelu", true)
	for _, kv := range []struct {
		key   string
		value int
	}{
		{"image_size", o.Side},
		{"patch_size", o.Patch},
		{"embedding_length", o.Width},
		{"feed_forward_length", o.Feed},
		{"block_count", o.Layers},
		{"projection_dim", o.Output},
		{"attention.head_count", o.Heads},
	} {
		b.Uint("clip.vision."+kv.key, uint32(kv.value))
	}
	b.Float("clip.vision.attention.layer_norm_epsilon", 1e-5)
	b.Floats("clip.vision.image_mean", []float32{0.5, 0.5, 0.5})
	b.Floats("clip.vision.image_std", []float32{0.5, 0.5, 0.5})
	b.projectorTensors(o)
	return b, b.err
}

func (b *Builder) projectorTensors(o ProjectorOptions) {
	stream := uint64(1 << 32) // distinct from those of Tiny
	random := func(name string, dims ...uint64) {
		stream++
		b.Tensor(name, gguf.F32, normalF32(rand.New(rand.NewPCG(o.Seed, stream)), 0.1), dims...)
	}
	norm := func(name string, n uint64) {
		b.Tensor(name+".weight", gguf.F32, ones, n)
		random(name+".bias", n)
	}
	w, f, out, patch := uint64(o.Width), uint64(o.Feed), uint64(o.Output), uint64(o.Patch)
	random("v.patch_embd.weight", patch, patch, 3, w)
	random("v.position_embd.weight", w, uint64(o.Tokens()))
	norm("v.pre_ln", w)
	for i := range o.Layers {
		p := fmt.Sprintf("v.blk.%d.", i)
		norm(p+"ln1", w)
		random(p+"attn_q.weight", w, w)
		random(p+"attn_k.weight", w, w)
		random(p+"attn_v.weight", w, w)
		random(p+"attn_out.weight", w, w)
		norm(p+"ln2", w)
		random(p+"ffn_up.weight", w, f)
		random(p+"ffn_down.weight", f, w)
	}
	random("mm.0.weight", w, out)
	random("mm.0.bias", out)
	random("mm.2.weight", out, out)
	random("mm.2.bias", out)
}
