package ggufgen

func mamba28(q Quant) *shape {
	const inner, state, rank, conv = 5120, 16, 160, 4
	s := base("mamba", q, 64, 2560, 1048576, 50280, true)
	s.uint("feed_forward_length", 0)
	s.uint("attention.head_count", 0)
	s.uint("ssm.conv_kernel", conv)
	s.uint("ssm.inner_size", inner)
	s.uint("ssm.state_size", state)
	s.uint("ssm.time_step_rank", rank)
	s.float("attention.layer_norm_rms_epsilon", 1e-5)
	for i := range s.layers {
		s.norm(i, "attn_norm.weight")
		s.matrix(i, "ssm_in.weight", s.embd, 2*inner)
		s.vector(blk(i, "ssm_conv1d.weight"), conv, inner)
		s.vector(blk(i, "ssm_conv1d.bias"), inner)
		s.vector(blk(i, "ssm_x.weight"), inner, rank+2*state)
		s.vector(blk(i, "ssm_dt.weight"), rank, inner)
		s.vector(blk(i, "ssm_dt.bias"), inner)
		s.vector(blk(i, "ssm_a"), state, inner)
		s.vector(blk(i, "ssm_d"), inner)
		s.matrix(i, "ssm_out.weight", inner, s.embd)
	}
	return s
}

func mamba2x27(q Quant) *shape {
	m := ssm{inner: 5120, state: 128, heads: 80, groups: 1, conv: 4}
	s := base("mamba2", q, 64, 2560, 1048576, 50288, true)
	s.uint("feed_forward_length", 0)
	s.uint("attention.head_count", 0)
	s.ssmState(m)
	s.float("attention.layer_norm_rms_epsilon", 1e-5)
	for i := range s.layers {
		s.norm(i, "attn_norm.weight")
		s.scan(i, m)
	}
	return s
}

func falconH1(q Quant) *shape {
	m := ssm{inner: 3072, state: 256, heads: 24, groups: 1, conv: 4}
	a := attention{heads: 12, kv: 2, key: 128, value: 128}
	s := base("falcon-h1", q, 44, 3072, 262144, 130048, false)
	s.state(a, "layer_norm_rms_epsilon")
	s.uint("feed_forward_length", 12288)
	s.ssmState(m)
	for i := range s.layers {
		s.norm(i, "attn_norm.weight", "ffn_norm")
		s.scan(i, m)
		s.attend(i, a)
		s.feed(i, 12288)
	}
	return s
}

func lfm2x12(q Quant) *shape {
	s := base("lfm2", q, 16, 2048, 128000, 65536, true)
	full := map[int]bool{2: true, 5: true, 8: true, 10: true, 12: true, 14: true}
	kv := make([]uint32, s.layers)
	for i := range kv {
		if full[i] {
			kv[i] = 8
		}
	}
	a := attention{heads: 32, kv: 8, key: 64, value: 64, qkNorm: true}
	s.uint("attention.head_count", a.heads)
	s.uints("attention.head_count_kv", kv)
	s.uint("feed_forward_length", 8192)
	s.uint("shortconv.l_cache", 3)
	s.float("attention.layer_norm_rms_epsilon", 1e-5)
	s.vector("token_embd_norm.weight", s.embd)
	for i := range s.layers {
		s.norm(i, "attn_norm.weight", "ffn_norm.weight")
		s.feed(i, 8192)
		if full[i] {
			s.attend(i, a)
			continue
		}
		s.vector(blk(i, "shortconv.conv.weight"), 3, s.embd)
		s.matrix(i, "shortconv.in_proj.weight", s.embd, 3*s.embd)
		s.matrix(i, "shortconv.out_proj.weight", s.embd, s.embd)
	}
	return s
}

func granite4Tiny(q Quant) *shape {
	s := base("granitehybrid", q, 40, 1536, 131072, 100352, true)
	m := ssm{inner: 3072, state: 128, heads: 48, groups: 1, conv: 4}
	a := attention{heads: 12, kv: 4, key: 128, value: 128}
	full := map[int]bool{5: true, 15: true, 25: true, 35: true}
	kv := make([]uint32, s.layers)
	for i := range kv {
		if full[i] {
			kv[i] = 4
		}
	}
	s.uint("attention.head_count", a.heads)
	s.uints("attention.head_count_kv", kv)
	s.float("attention.layer_norm_rms_epsilon", 1e-5)
	s.uint("feed_forward_length", 512)
	s.uint("expert_count", 64)
	s.uint("expert_used_count", 6)
	s.uint("expert_shared_feed_forward_length", 1024)
	s.ssmState(m)
	for i := range s.layers {
		s.norm(i, "attn_norm.weight", "ffn_norm.weight")
		if full[i] {
			s.attend(i, a)
		} else {
			s.scan(i, m)
		}
		s.experts(i, 64, 512, 1024)
	}
	return s
}

func qwen3Next(q Quant) *shape {
	const heads, kvHeads, head = 16, 2, 256
	const stateSize, keyHeads, valueHeads, conv = 128, 16, 32, 4
	const keys, values = stateSize * keyHeads, stateSize * valueHeads
	s := base("qwen3next", q, 48, 2048, 262144, 151936, false)
	s.state(attention{heads: heads, kv: kvHeads, key: head, value: head}, "layer_norm_rms_epsilon")
	s.uint("feed_forward_length", 5120)
	s.uint("expert_feed_forward_length", 512)
	s.uint("expert_shared_feed_forward_length", 512)
	s.uint("expert_count", 512)
	s.uint("expert_used_count", 10)
	s.ssmState(ssm{inner: values, state: stateSize, heads: valueHeads, groups: keyHeads, conv: conv})
	for i := range s.layers {
		s.norm(i, "attn_norm.weight", "post_attention_norm.weight", "ffn_gate_inp_shexp.weight")
		s.experts(i, 512, 512, 512)
		if (i+1)%4 == 0 {
			s.matrix(i, "attn_q.weight", s.embd, 2*heads*head) // query and gate
			s.matrix(i, "attn_k.weight", s.embd, kvHeads*head)
			s.matrix(i, "attn_v.weight", s.embd, kvHeads*head)
			s.matrix(i, "attn_output.weight", heads*head, s.embd)
			s.norms(i, head, "attn_q_norm.weight", "attn_k_norm.weight")
			continue
		}
		s.matrix(i, "attn_qkv.weight", s.embd, 2*keys+values)
		s.matrix(i, "attn_gate.weight", s.embd, values)
		s.vector(blk(i, "ssm_conv1d.weight"), conv, 2*keys+values)
		s.vector(blk(i, "ssm_dt.bias"), valueHeads)
		s.vector(blk(i, "ssm_a"), valueHeads)
		s.matrix(i, "ssm_ba.weight", s.embd, 2*valueHeads)
		s.norms(i, stateSize, "ssm_norm.weight")
		s.matrix(i, "ssm_out.weight", values, s.embd)
	}
	return s
}
