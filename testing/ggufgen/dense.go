package ggufgen

// llamaLike builds the plain decoder that several families share.
func llamaLike(s *shape, a attention, ff uint64) *shape {
	s.state(a, "layer_norm_rms_epsilon")
	s.uint("feed_forward_length", ff)
	for i := range s.layers {
		s.norm(i, "attn_norm.weight", "ffn_norm.weight")
		s.attend(i, a)
		s.feed(i, ff)
	}
	return s
}

func llama3x8b(q Quant) *shape {
	s := base("llama", q, 32, 4096, 8192, 128256, false)
	return llamaLike(s, attention{heads: 32, kv: 8, key: 128, value: 128}, 14336)
}

func llama3x70b(q Quant) *shape {
	s := base("llama", q, 80, 8192, 8192, 128256, false)
	s.big = true
	return llamaLike(s, attention{heads: 64, kv: 8, key: 128, value: 128}, 28672)
}

func smollm2(q Quant) *shape {
	s := base("llama", q, 30, 576, 8192, 49152, true)
	return llamaLike(s, attention{heads: 9, kv: 3, key: 64, value: 64}, 1536)
}

func qwen3x8b(q Quant) *shape {
	s := base("qwen3", q, 36, 4096, 40960, 151936, false)
	return llamaLike(s, attention{heads: 32, kv: 8, key: 128, value: 128, qkNorm: true}, 12288)
}

func qwen25x7b(q Quant) *shape {
	s := base("qwen2", q, 28, 3584, 32768, 152064, false)
	return llamaLike(s, attention{heads: 28, kv: 4, key: 128, value: 128, bias: true}, 18944)
}

// gemma builds Gemma 2 and 3, with norms after attention and feed-forward.
func gemma(s *shape, a attention, ff, window uint64) *shape {
	s.state(a, "layer_norm_rms_epsilon")
	s.uint("feed_forward_length", ff)
	s.uint("attention.sliding_window", window)
	for i := range s.layers {
		s.norm(i, "attn_norm.weight", "post_attention_norm.weight", "ffn_norm.weight", "post_ffw_norm.weight")
		s.attend(i, a)
		s.feed(i, ff)
	}
	return s
}

func gemma3x4b(q Quant) *shape {
	s := base("gemma3", q, 34, 2560, 131072, 262208, true)
	return gemma(s, attention{heads: 8, kv: 4, key: 256, value: 256, qkNorm: true}, 10240, 1024)
}

func gemma3x270m(q Quant) *shape {
	s := base("gemma3", q, 18, 640, 32768, 262144, true)
	return gemma(s, attention{heads: 4, kv: 1, key: 256, value: 256, qkNorm: true}, 2048, 512)
}

func gemma2x9b(q Quant) *shape {
	s := base("gemma2", q, 42, 3584, 8192, 256000, true)
	return gemma(s, attention{heads: 16, kv: 8, key: 256, value: 256}, 14336, 4096)
}

func phi3mini(q Quant) *shape {
	s := base("phi3", q, 32, 3072, 4096, 32064, false)
	a := attention{heads: 32, kv: 32, key: 96, value: 96, fused: true}
	s.state(a, "layer_norm_rms_epsilon")
	s.uint("feed_forward_length", 8192)
	for i := range s.layers {
		s.norm(i, "attn_norm.weight", "ffn_norm.weight")
		s.attend(i, a)
		s.matrix(i, "ffn_up.weight", s.embd, 2*8192)
		s.matrix(i, "ffn_down.weight", 8192, s.embd)
	}
	return s
}

func starcoder2x7b(q Quant) *shape {
	s := base("starcoder2", q, 32, 4608, 16384, 49152, true)
	a := attention{heads: 36, kv: 4, key: 128, value: 128, bias: true}
	s.state(a, "layer_norm_epsilon")
	s.uint("feed_forward_length", 18432)
	s.vector("output_norm.bias", s.embd)
	for i := range s.layers {
		s.norm(i, "attn_norm.weight", "attn_norm.bias", "ffn_norm.weight", "ffn_norm.bias", "attn_output.bias", "ffn_down.bias")
		s.vector(blk(i, "ffn_up.bias"), 18432)
		s.attend(i, a)
		s.matrix(i, "ffn_up.weight", s.embd, 18432)
		s.matrix(i, "ffn_down.weight", 18432, s.embd)
	}
	return s
}

func commandR7b(q Quant) *shape {
	s := base("cohere2", q, 32, 4096, 8192, 256000, true)
	a := attention{heads: 32, kv: 8, key: 128, value: 128}
	s.state(a, "layer_norm_epsilon")
	s.uint("feed_forward_length", 14336)
	s.uint("attention.sliding_window", 4096)
	s.float("logit_scale", 0.25)
	for i := range s.layers {
		s.norm(i, "attn_norm.weight")
		s.attend(i, a)
		s.feed(i, 14336)
	}
	return s
}
