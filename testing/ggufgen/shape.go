package ggufgen

import (
	"fmt"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// Quant is a recipe of storage types, as llama-quantize mixes them.
type Quant string

// The recipes for shapes.
const (
	Q4KM Quant = "Q4_K_M"
	Q8   Quant = "Q8_0"
	Half Quant = "F16"
	MX4  Quant = "MXFP4"
)

// shape writes the metadata and tensors of one model.
type shape struct {
	b      *Builder
	arch   string
	quant  Quant
	layers int
	embd   uint64
	tied   bool
	moe    bool
	big    bool // 70B and more: keys and values get more bits
}

// base returns a model with the metadata that every architecture has.
func base(arch string, q Quant, layers int, embd, ctx, vocab uint64, tied bool) *shape {
	s := &shape{b: New(arch), arch: arch, quant: q, layers: layers, embd: embd, tied: tied}
	s.b.Text("general.type", "model")
	s.b.Uint("general.file_type", map[Quant]uint32{Half: 1, Q8: 7, Q4KM: 15, MX4: 38}[q])
	s.uint("block_count", uint64(layers))
	s.uint("context_length", ctx)
	s.uint("embedding_length", embd)
	s.uint("vocab_size", vocab)
	// Without a vocabulary, llama.cpp reads the size from vocab_size.
	s.b.Text("tokenizer.ggml.model", "no_vocab")
	s.matrix(-1, "token_embd.weight", embd, vocab)
	if !tied {
		s.matrix(-1, "output.weight", embd, vocab)
	}
	return s
}

func (s *shape) uint(key string, v uint64)       { s.b.Uint(s.arch+"."+key, uint32(v)) }
func (s *shape) float(key string, v float32)     { s.b.Float(s.arch+"."+key, v) }
func (s *shape) uints(key string, v []uint32)    { s.b.Uints(s.arch+"."+key, v) }
func (s *shape) vector(name string, n ...uint64) { s.b.Tensor(name, gguf.F32, nil, n...) }
func blk(i int, name string) string              { return fmt.Sprintf("blk.%d.%s", i, name) }
func (s *shape) norm(i int, names ...string)     { s.norms(i, s.embd, names...) }

// norms adds vectors of n numbers to layer i.
func (s *shape) norms(i int, n uint64, names ...string) {
	for _, name := range names {
		s.vector(blk(i, name), n)
	}
}

// matrix adds a weight matrix with the recipe's type.
func (s *shape) matrix(layer int, name string, dims ...uint64) {
	full := name
	if layer >= 0 {
		full = blk(layer, name)
	}
	s.b.Tensor(full, s.typeOf(layer, name, dims[0]), nil, dims...)
}

// typeOf follows llama-quantize (llama-quant.cpp, v0.5.0) for the recipes here.
func (s *shape) typeOf(layer int, name string, row uint64) gguf.TensorType {
	var t gguf.TensorType
	switch s.quant {
	case Half:
		return gguf.F16
	case Q8:
		t = gguf.Q8_0
	case MX4:
		t = gguf.Q8_0
		if isExperts(name) {
			t = gguf.MXFP4
		}
	case Q4KM:
		t = s.mixed(layer, name)
	}
	return fallback(t, row)
}

// mixed is the mixture of Q4_K_M.
func (s *shape) mixed(layer int, name string) gguf.TensorType {
	switch name {
	case "output.weight":
		return gguf.Q6_K
	case "token_embd.weight":
		if s.tied {
			return gguf.Q6_K
		}
	case "attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight", "attn_v_b.weight":
		switch {
		case s.moe && name == "attn_v.weight":
			return gguf.Q8_0
		case name == "attn_qkv.weight":
			return gguf.Q5_K
		case moreBits(layer, s.layers):
			return gguf.Q6_K
		case s.big:
			return gguf.Q5_K
		}
	case "attn_k.weight":
		if s.moe {
			return gguf.Q8_0
		}
	case "ffn_down.weight", "ffn_down_exps.weight", "ffn_down_shexp.weight":
		if moreBits(layer, s.layers) {
			return gguf.Q6_K
		}
	}
	return gguf.Q4_K
}

func isExperts(name string) bool {
	return slices.Contains([]string{"ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight"}, name)
}

// moreBits reports whether a layer gets more bits: the first and last eighth, and every third
// between.
func moreBits(i, n int) bool {
	return i < n/8 || i >= 7*n/8 || (i-n/8)%3 == 2
}

// fallback replaces a type whose blocks do not divide the row.
func fallback(t gguf.TensorType, row uint64) gguf.TensorType {
	if row%t.BlockElements() == 0 {
		return t
	}
	switch t {
	case gguf.Q4_K:
		t = gguf.Q5_0
	case gguf.Q5_K:
		t = gguf.Q5_1
	default:
		t = gguf.Q8_0
	}
	if row%t.BlockElements() != 0 {
		return gguf.F16
	}
	return t
}

// attention describes the attention part of a layer.
type attention struct {
	heads, kv  uint64
	key, value uint64 // head sizes
	fused      bool   // attn_qkv in one
	bias       bool
	qkNorm     bool
}

// state writes the keys of attention that most architectures share.
func (s *shape) state(a attention, eps string) {
	s.uint("attention.head_count", a.heads)
	s.uint("attention.head_count_kv", a.kv)
	s.uint("attention.key_length", a.key)
	s.uint("attention.value_length", a.value)
	s.uint("rope.dimension_count", a.key)
	s.float("attention."+eps, 1e-5)
}

func (s *shape) attend(i int, a attention) {
	q, k, v := a.heads*a.key, a.kv*a.key, a.kv*a.value
	if a.fused {
		s.matrix(i, "attn_qkv.weight", s.embd, q+k+v)
	} else {
		s.matrix(i, "attn_q.weight", s.embd, q)
		s.matrix(i, "attn_k.weight", s.embd, k)
		s.matrix(i, "attn_v.weight", s.embd, v)
	}
	if a.bias {
		s.vector(blk(i, "attn_q.bias"), q)
		s.vector(blk(i, "attn_k.bias"), k)
		s.vector(blk(i, "attn_v.bias"), v)
	}
	if a.qkNorm {
		s.norms(i, a.key, "attn_q_norm.weight", "attn_k_norm.weight")
	}
	s.matrix(i, "attn_output.weight", a.heads*a.value, s.embd)
}

// feed adds a gated feed-forward part.
func (s *shape) feed(i int, n uint64) {
	s.matrix(i, "ffn_gate.weight", s.embd, n)
	s.matrix(i, "ffn_up.weight", s.embd, n)
	s.matrix(i, "ffn_down.weight", n, s.embd)
}

// experts adds a mixture of n experts of width w and, if shared is not 0, a shared one.
func (s *shape) experts(i int, n, w, shared uint64) {
	s.vector(blk(i, "ffn_gate_inp.weight"), s.embd, n)
	s.matrix(i, "ffn_gate_exps.weight", s.embd, w, n)
	s.matrix(i, "ffn_up_exps.weight", s.embd, w, n)
	s.matrix(i, "ffn_down_exps.weight", w, s.embd, n)
	if shared > 0 {
		s.matrix(i, "ffn_gate_shexp.weight", s.embd, shared)
		s.matrix(i, "ffn_up_shexp.weight", s.embd, shared)
		s.matrix(i, "ffn_down_shexp.weight", shared, s.embd)
	}
}

// ssm describes a state-space layer of the Mamba 2 kind.
type ssm struct {
	inner, state, heads, groups, conv uint64
}

func (s *shape) ssmState(m ssm) {
	s.uint("ssm.conv_kernel", m.conv)
	s.uint("ssm.inner_size", m.inner)
	s.uint("ssm.state_size", m.state)
	s.uint("ssm.time_step_rank", m.heads)
	s.uint("ssm.group_count", m.groups)
}

func (s *shape) scan(i int, m ssm) {
	conv := m.inner + 2*m.groups*m.state
	s.matrix(i, "ssm_in.weight", s.embd, m.inner+conv+m.heads)
	s.vector(blk(i, "ssm_conv1d.weight"), m.conv, conv)
	s.vector(blk(i, "ssm_conv1d.bias"), conv)
	s.vector(blk(i, "ssm_dt.bias"), m.heads)
	s.vector(blk(i, "ssm_a"), 1, m.heads)
	s.vector(blk(i, "ssm_d"), 1, m.heads)
	s.vector(blk(i, "ssm_norm.weight"), m.inner/m.groups, m.groups)
	s.matrix(i, "ssm_out.weight", m.inner, s.embd)
}
