package plan

import (
	"fmt"
	"regexp"
	"strconv"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// layerShape is what one layer needs to be known of.
type layerShape struct {
	weights uint64 // bytes
	kvBytes func(cells uint64, k, v gguf.TensorType) uint64
	window  bool // sliding-window attention
}

// model holds the sizes that estimates are computed from.
type model struct {
	file    *gguf.File
	layers  int
	train   int // trained context
	vocab   uint64
	embd    uint64
	window  uint64 // of sliding-window layers, in tokens
	input   uint64 // bytes of tensors that stay on the host
	output  uint64 // bytes of the output layer's tensors
	tied    bool   // the output layer is the token embedding
	headDim uint64
	layer   []layerShape
}

// newModel reads the shapes of a model.
func newModel(f *gguf.File) (*model, error) {
	m := &model{
		file: f, layers: f.BlockCount(), train: f.ContextLength(),
		vocab: uint64(f.VocabSize()), embd: uint64(f.EmbeddingLength()),
	}
	if f.Architecture() == "" || m.layers <= 0 || m.embd == 0 {
		return nil, fmt.Errorf("%w: a file of kind %q without layers cannot be run by itself", ErrOption, f.Kind())
	}
	m.layer = make([]layerShape, m.layers)
	m.placeTensors()
	if err := m.cacheShapes(); err != nil {
		return nil, err
	}
	return m, nil
}

// placeTensors sums the bytes of each layer, of the input and of the output.
func (m *model) placeTensors() {
	block := regexp.MustCompile(`^blk\.(\d+)\.`)
	for _, t := range m.file.Tensors() {
		if s := block.FindStringSubmatch(t.Name); s != nil {
			if i, err := strconv.Atoi(s[1]); err == nil && i < m.layers {
				m.layer[i].weights += t.Bytes
				continue
			}
		}
		switch t.Name {
		case "output.weight", "output.bias", "output_norm.weight", "output_norm.bias":
			m.output += t.Bytes
		default:
			m.input += t.Bytes
		}
	}
	if _, own := m.file.Tensor("output.weight"); !own {
		m.tied = true
		if t, ok := m.file.Tensor("token_embd.weight"); ok {
			m.output += t.Bytes
		}
	}
}

// cacheShapes derives the bytes of the attention cache of each layer.
func (m *model) cacheShapes() error {
	f := m.file
	heads := uint64(f.HeadCount())
	if heads == 0 {
		heads = 1
	}
	keyLen, ok := f.ArchUint("attention.key_length")
	if !ok {
		keyLen = m.embd / heads
	}
	valLen, ok := f.ArchUint("attention.value_length")
	if !ok {
		valLen = m.embd / heads
	}
	m.headDim = keyLen
	kv, err := f.ArchUints("attention.head_count_kv")
	if err != nil {
		kv = []uint64{heads}
	}
	for i := range m.layer {
		n := kv[min(i, len(kv)-1)]
		m.layer[i].kvBytes = func(cells uint64, k, v gguf.TensorType) uint64 {
			kb, errK := k.RowBytes(n * keyLen)
			vb, errV := v.RowBytes(n * valLen)
			if errK != nil || errV != nil {
				return 0
			}
			return cells * (kb + vb)
		}
	}
	return nil
}
