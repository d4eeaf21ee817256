package plan

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// maxWidth limits every size that is read from metadata and multiplied. It is far
// above the sizes of real models, and far below an overflow.
const maxWidth = 1 << 24

// layer has the sizes of one layer.
type layer struct {
	dense     uint64 // bytes of weights besides the experts
	experts   uint64 // bytes of expert weights
	largest   uint64 // bytes of the largest tensor
	keyRow    uint64 // elements of a cached key, 0: no attention cache
	valueRow  uint64 // elements of a cached value
	window    bool   // caches a window only
	recurrent bool   // caches convolution and state
	query     uint64 // elements of the queries of a token
	heads     uint64
	feed      uint64 // width of the dense feed-forward part
}

// model holds the sizes that estimates are computed from.
type model struct {
	file   *gguf.File
	arch   string
	layers []layer
	train  uint64 // trained context
	vocab  uint64
	embd   uint64
	window uint64 // tokens

	input  uint64 // bytes of tensors that stay on the host
	output uint64 // bytes of the output layer's tensors, without a tied embedding
	tied   uint64 // bytes of the embedding if the output layer uses it too, otherwise 0

	heads       headSizes
	conv, state uint64 // floats of a recurrent layer for a sequence
	cached      bool   // caches anything between batches
	gated       bool   // feed-forward with a separate gate
	fusedGate   bool   // gate and up in one tensor
	used        uint64 // experts per token
	expertFeed  uint64 // width of an expert
	inner       uint64 // width of the recurrent part
	project     uint64 // width of its input projection
}

// newModel reads the sizes of a model.
func newModel(f *gguf.File) (*model, error) {
	if f == nil {
		return nil, fmt.Errorf("%w: no model", ErrInvalidOption)
	}
	m := &model{
		file: f, arch: f.Architecture(), train: uint64(f.ContextLength()),
		vocab: uint64(f.VocabSize()), embd: uint64(f.EmbeddingLength()), cached: !noCache(f.Architecture()),
	}
	next, _ := f.ArchUint("nextn_predict_layers") // absent: none
	n := f.BlockCount() - int(min(next, 512))
	if m.arch == "" || n <= 0 || n > 512 || m.embd == 0 || m.embd > maxWidth || m.vocab > maxWidth || m.train > 1<<32 {
		return nil, fmt.Errorf("%w: a file of kind %.80q, architecture %.80q, %d layers of width %d is not a model that can run on its own",
			ErrInvalidOption, f.Kind(), m.arch, n, m.embd)
	}
	m.layers = make([]layer, n)
	m.placeTensors()
	if err := m.shapes(); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return m, nil
}

// checkCacheTypes returns an error if the block size of a quantised cache type does
// not divide the heads, which llama.cpp requires.
func (m *model) checkCacheTypes(l load) error {
	for _, c := range []struct {
		option, what string
		size         uint64
		typ          gguf.TensorType
	}{{"Cache.KeyType", "key", m.heads.key, l.keyType}, {"Cache.ValueType", "value", m.heads.value, l.valueType}} {
		if m.cached && c.size%c.typ.BlockElements() != 0 {
			return InvalidOption(c.option, "a %s cache of type %s needs heads of a multiple of %d, this model's have %d",
				c.what, strings.ToLower(c.typ.String()), c.typ.BlockElements(), c.size)
		}
	}
	return nil
}

// placeTensors adds up the bytes of the layers, the input and the output.
func (m *model) placeTensors() {
	var embedding uint64
	own := false
	for _, t := range m.file.Tensors() {
		if i, rest, ok := block(t.Name); ok {
			if i < len(m.layers) {
				m.layers[i].add(rest, t.Bytes)
				m.feedKind(rest, t)
			}
			continue // layers after the last are for speculation and are not loaded
		}
		switch t.Name {
		case "token_embd.weight":
			embedding = t.Bytes
			m.input += t.Bytes
		case "position_embd.weight", "token_types.weight", "per_layer_token_embd.weight":
			m.input += t.Bytes
		case "output.weight":
			own = true
			m.output += t.Bytes
		default:
			m.output += t.Bytes
		}
	}
	if !own && m.cached {
		m.tied = embedding
	}
}

func (l *layer) add(name string, bytes uint64) {
	if strings.HasSuffix(name, "_exps.weight") || strings.HasSuffix(name, "_chexps.weight") {
		l.experts += bytes
	} else {
		l.dense += bytes
	}
	l.largest = max(l.largest, bytes)
}

// feedKind records the structure of the feed-forward part, from its tensors.
func (m *model) feedKind(name string, t gguf.Tensor) {
	switch name {
	case "ffn_gate.weight", "ffn_gate_exps.weight":
		m.gated = true
	case "ffn_gate_up_exps.weight":
		m.gated = true
	case "ffn_up.weight":
		feed, _ := m.file.ArchUint("feed_forward_length") // compared only
		m.fusedGate = m.fusedGate || (feed > 0 && t.Dims[1] == 2*feed)
	case "ssm_in.weight", "attn_qkv.weight":
		if _, ok := m.file.ArchUint("ssm.inner_size"); ok {
			m.project = max(m.project, min(t.Dims[1], maxWidth))
		}
	}
}

// block splits "blk.12.attn_q.weight" into 12 and "attn_q.weight".
func block(name string) (i int, rest string, ok bool) {
	name, ok = strings.CutPrefix(name, "blk.")
	if !ok {
		return 0, "", false
	}
	number, rest, ok := strings.Cut(name, ".")
	i, err := strconv.Atoi(number)
	return i, rest, ok && err == nil && i >= 0
}

// perLayer returns a value for each layer. A scalar applies to all layers; for an
// absent key, the values are fallback.
func (m *model) perLayer(key string, fallback uint64) ([]uint64, error) {
	out := slices.Repeat([]uint64{fallback}, len(m.layers))
	v, err := m.file.ArchUints(key)
	if errors.Is(err, gguf.ErrNotFound) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	for i := range out {
		switch {
		case len(v) == 1:
			out[i] = v[0]
		case i < len(v):
			out[i] = v[i]
		}
		if out[i] > maxWidth {
			return nil, fmt.Errorf("%w: %.80q is %d", gguf.ErrMalformed, m.file.ArchKey(key), out[i])
		}
	}
	return out, nil
}

// one returns a single size, or fallback if the key is absent.
func (m *model) one(key string, fallback uint64) (uint64, error) {
	v, ok := m.file.ArchUint(key)
	if !ok {
		return fallback, nil
	}
	if v > maxWidth {
		return 0, fmt.Errorf("%w: %.80q is %d", gguf.ErrMalformed, m.file.ArchKey(key), v)
	}
	return v, nil
}
