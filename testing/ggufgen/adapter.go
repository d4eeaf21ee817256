package ggufgen

import (
	"fmt"
	"math/rand/v2"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// AdapterOptions describe a LoRA adapter; zero fields have the default in the comment.
type AdapterOptions struct {
	Rank      int     // 4
	Alpha     float32 // at a scale of 1 the change is Alpha/Rank times B·A: Rank
	Deviation float64 // of the normally distributed weights of A and B: 1
	Seed      uint64  // of the weights
}

// Adapter builds a LoRA adapter with random weights for the feed-forward part of
// every layer of a tiny model that was built with the same shape. Keys and names
// are those that llama_adapter_lora_init_impl reads (src/llama-adapter.cpp in
// llama.cpp v0.5.0): of a matrix of in×out, A is in×rank and B is rank×out.
func Adapter(model TinyOptions, o AdapterOptions) (*Builder, error) {
	if err := model.defaults(); err != nil {
		return nil, err
	}
	if o.Rank < 0 || o.Deviation < 0 {
		return nil, fmt.Errorf("adapter: rank and deviation must not be negative: %+v", o)
	}
	if o.Rank == 0 {
		o.Rank = 4
	}
	if o.Alpha == 0 {
		o.Alpha = float32(o.Rank)
	}
	if o.Deviation == 0 {
		o.Deviation = 1
	}
	b := New("llama")
	b.Text("general.type", "adapter")
	b.Text("general.name", model.Name+" adapter")
	b.Text("adapter.type", "lora")
	b.Float("adapter.lora.alpha", o.Alpha)
	r := rand.New(rand.NewPCG(o.Seed, 0))
	rank := uint64(o.Rank)
	for i := range model.Layers {
		name := fmt.Sprintf("blk.%d.ffn_up.weight", i)
		b.Tensor(name+".lora_a", gguf.F32, normalF32(r, o.Deviation), uint64(model.Width), rank)
		b.Tensor(name+".lora_b", gguf.F32, normalF32(r, o.Deviation), rank, uint64(model.Feed))
	}
	return b, b.err
}
