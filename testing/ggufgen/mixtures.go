package ggufgen

func mixtral(q Quant) *shape {
	s := base("llama", q, 32, 4096, 32768, 32000, false)
	s.moe = true
	a := attention{heads: 32, kv: 8, key: 128, value: 128}
	s.state(a, "layer_norm_rms_epsilon")
	s.uint("feed_forward_length", 14336)
	s.uint("expert_count", 8)
	s.uint("expert_used_count", 2)
	for i := range s.layers {
		s.norm(i, "attn_norm.weight", "ffn_norm.weight")
		s.attend(i, a)
		s.experts(i, 8, 14336, 0)
	}
	return s
}

func qwen3x30b(q Quant) *shape {
	s := base("qwen3moe", q, 48, 2048, 40960, 151936, false)
	a := attention{heads: 32, kv: 4, key: 128, value: 128, qkNorm: true}
	s.state(a, "layer_norm_rms_epsilon")
	s.uint("feed_forward_length", 6144)
	s.uint("expert_feed_forward_length", 768)
	s.uint("expert_count", 128)
	s.uint("expert_used_count", 8)
	for i := range s.layers {
		s.norm(i, "attn_norm.weight", "ffn_norm.weight")
		s.attend(i, a)
		s.experts(i, 128, 768, 0)
	}
	return s
}

func gptoss20b(q Quant) *shape {
	s := base("gpt-oss", q, 24, 2880, 131072, 201088, false)
	a := attention{heads: 64, kv: 8, key: 64, value: 64, bias: true}
	s.state(a, "layer_norm_rms_epsilon")
	s.uint("attention.sliding_window", 128)
	s.uint("feed_forward_length", 2880)
	s.uint("expert_feed_forward_length", 2880)
	s.uint("expert_count", 32)
	s.uint("expert_used_count", 4)
	for i := range s.layers {
		s.norm(i, "attn_norm.weight", "post_attention_norm.weight", "attn_output.bias")
		s.vector(blk(i, "attn_sinks.weight"), a.heads)
		s.attend(i, a)
		s.experts(i, 32, 2880, 0)
		s.vector(blk(i, "ffn_gate_inp.bias"), 32)
		s.vector(blk(i, "ffn_gate_exps.bias"), 2880, 32)
		s.vector(blk(i, "ffn_up_exps.bias"), 2880, 32)
		s.vector(blk(i, "ffn_down_exps.bias"), s.embd, 32)
	}
	return s
}

// deepseekV2Lite stores the compressed keys and values of latent attention:
// one key head of rank plus rotary part.
func deepseekV2Lite(q Quant) *shape {
	const heads, rank, rope, nope, value = 16, 512, 64, 128, 128
	s := base("deepseek2", q, 27, 2048, 163840, 102400, false)
	s.uint("attention.head_count", heads)
	s.uint("attention.head_count_kv", 1)
	s.uint("attention.key_length", rank+rope)
	s.uint("attention.value_length", rank)
	s.uint("attention.key_length_mla", nope+rope)
	s.uint("attention.value_length_mla", value)
	s.uint("attention.kv_lora_rank", rank)
	s.uint("rope.dimension_count", rope)
	s.float("attention.layer_norm_rms_epsilon", 1e-6)
	s.uint("feed_forward_length", 10944)
	s.uint("expert_feed_forward_length", 1408)
	s.uint("expert_count", 64)
	s.uint("expert_used_count", 6)
	s.uint("expert_shared_count", 2)
	s.uint("leading_dense_block_count", 1)
	for i := range s.layers {
		s.norm(i, "attn_norm.weight", "ffn_norm.weight")
		s.norms(i, rank, "attn_kv_a_norm.weight")
		s.matrix(i, "attn_q.weight", s.embd, heads*(nope+rope))
		s.matrix(i, "attn_kv_a_mqa.weight", s.embd, rank+rope)
		s.matrix(i, "attn_k_b.weight", nope, rank, heads)
		s.matrix(i, "attn_v_b.weight", rank, value, heads)
		s.matrix(i, "attn_output.weight", heads*value, s.embd)
		if i == 0 {
			s.feed(i, 10944)
			continue
		}
		s.experts(i, 64, 1408, 2*1408)
	}
	return s
}
