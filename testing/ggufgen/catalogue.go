package ggufgen

// Known is a published model with the sizes of its configuration, and without weights.
type Known struct {
	Name  string // "qwen3-8b"
	Arch  string // GGUF architecture
	Quant Quant
	Trait string // what is special about its memory
	build func(Quant) *shape
}

// ID returns name and recipe ("qwen3-8b-Q4_K_M"), for a file name.
func (k Known) ID() string { return k.Name + "-" + string(k.Quant) }

// Builder returns the model without data, to be written as a sparse file.
func (k Known) Builder() *Builder {
	s := k.build(k.Quant)
	s.b.Text("general.name", k.Name)
	if s.arch != "lfm2" { // its file calls this tensor token_embd_norm
		s.vector("output_norm.weight", s.embd)
	}
	return s.b
}

// Catalogue returns the models with known shapes.
func Catalogue() []Known {
	return []Known{
		{"qwen3-8b", "qwen3", Q4KM, "dense", qwen3x8b},
		{"gemma3-4b", "gemma3", Q4KM, "sliding window", gemma3x4b},
		{"llama3-8b", "llama", Q4KM, "dense", llama3x8b},
		{"qwen3-8b", "qwen3", Q8, "dense", qwen3x8b},
		{"llama3-70b", "llama", Q4KM, "dense", llama3x70b},
		{"gemma3-270m", "gemma3", Q8, "sliding window, large vocabulary", gemma3x270m},
		{"smollm2-135m", "llama", Q8, "dense, tied", smollm2},
		{"mixtral-8x7b", "llama", Q4KM, "mixture of experts", mixtral},
		{"qwen2.5-7b", "qwen2", Q4KM, "dense, biases", qwen25x7b},
		{"qwen3-30b-a3b", "qwen3moe", Q4KM, "mixture of experts", qwen3x30b},
		{"gemma2-9b", "gemma2", Q4KM, "sliding window every other layer", gemma2x9b},
		{"gpt-oss-20b", "gpt-oss", MX4, "mixture of experts, sliding window", gptoss20b},
		{"deepseek-v2-lite", "deepseek2", Q4KM, "latent attention, mixture of experts", deepseekV2Lite},
		{"phi3-mini", "phi3", Q4KM, "fused projections, full key heads", phi3mini},
		{"starcoder2-7b", "starcoder2", Q4KM, "biases, no gate", starcoder2x7b},
		{"command-r7b", "cohere2", Q4KM, "sliding window, tied", commandR7b},
		{"mamba-2.8b", "mamba", Q4KM, "recurrent", mamba28},
		{"mamba2-2.7b", "mamba2", Q4KM, "recurrent", mamba2x27},
		{"falcon-h1-7b", "falcon-h1", Q4KM, "attention and recurrent in each layer", falconH1},
		{"lfm2-1.2b", "lfm2", Q4KM, "short convolutions and attention", lfm2x12},
		{"granite4-h-tiny", "granitehybrid", Q4KM, "recurrent layers, mixture of experts", granite4Tiny},
		{"qwen3-next-80b", "qwen3next", Q4KM, "delta-net layers, mixture of experts", qwen3Next},
	}
}
