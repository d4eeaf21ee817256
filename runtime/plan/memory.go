package plan

import (
	"math"
	"math/bits"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

const (
	// defaultBatch is llama.cpp's physical batch (n_ubatch).
	defaultBatch = 512
	// logicalBatch is llama.cpp's n_batch.
	logicalBatch = 2048
	// autoSlots is llama-server's default number of slots.
	autoSlots = 4
	cellPad   = 256 // contexts and windows are rounded up to this many cells
)

// load has the options of a run on which the memory depends.
type load struct {
	context    uint64 // tokens in all
	slots      uint64
	unified    bool // slots share one context
	batch      uint64
	outputs    uint64 // tokens of a batch for which logits are computed
	keyType    gguf.TensorType
	valueType  gguf.TensorType
	flash      bool
	fullWindow bool
}

// plus and times saturate: a hostile file may state sizes whose sum or product
// overflows 64 bits, and the result must still be too large.
func plus(a, b uint64) uint64 {
	if s := a + b; s >= a {
		return s
	}
	return math.MaxUint64
}

func times(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	if hi != 0 {
		return math.MaxUint64
	}
	return lo
}

func padCells(n uint64) uint64 { return (n + cellPad - 1) / cellPad * cellPad }

// streams returns the number of separate caches.
func (l load) streams() uint64 {
	if l.unified {
		return 1
	}
	return l.slots
}

// perStream returns the number of cells of a full-context cache of one stream.
func (l load) perStream() uint64 {
	if l.unified {
		return padCells(l.context)
	}
	return padCells(padCells(l.context) / l.slots)
}

// windowCells returns the number of cells of a sliding-window cache of one stream.
func (l load) windowCells(window uint64) uint64 {
	base := l.perStream()
	if l.fullWindow {
		return base
	}
	sequences := uint64(1)
	if l.unified {
		sequences = l.slots
	}
	return padCells(min(base, window*sequences+l.batch))
}

// cacheBytes returns the size of what layer i caches: keys and values, state, or
// both.
func (m *model) cacheBytes(i int, l load) uint64 {
	y := m.layers[i]
	var sum uint64
	if y.recurrent && m.cached {
		sum = times(m.conv+m.state, 4*l.slots)
	}
	if y.keyRow == 0 {
		return sum
	}
	cells := l.perStream()
	if y.window {
		cells = l.windowCells(m.window)
	}
	value := y.valueRow
	if !l.flash {
		value = m.widestValue(value) // without flash attention, values are stored transposed and have equal widths
	}
	return plus(sum, times(cells*l.streams(), rowBytes(l.keyType, y.keyRow)+rowBytes(l.valueType, value)))
}

func (m *model) widestValue(v uint64) uint64 {
	if v == 0 {
		return 0
	}
	for i := range m.layers {
		v = max(v, m.layers[i].valueRow)
	}
	return v
}

// rowBytes is like RowBytes, for rows that may end within a block, as llama.cpp
// computes them.
func rowBytes(t gguf.TensorType, n uint64) uint64 {
	return n / t.BlockElements() * t.BlockBytes()
}

// layersCompute estimates the scratch memory of the layers: that of the largest
// layer, the masks, and the state that is being updated. The terms here and in
// outputCompute come from measurements of llama.cpp's own reservation for the
// shapes of 22 models; testing/ggufgen/cmd/fitcheck repeats the comparison.
func (m *model) layersCompute(l load) uint64 {
	tokens := min(l.batch, max(l.context, 1))
	var peak uint64
	for i := range m.layers {
		peak = max(peak, times(m.layerFloats(i, l), 4*tokens))
	}
	peak = plus(peak, m.maskBytes(l, tokens))
	if m.inner > 0 {
		peak = plus(peak, times(m.state, 4*l.slots))
	}
	return peak
}

// outputCompute estimates the scratch memory of the output layer: the logits, and
// the hidden states that are in memory at the same time.
func (m *model) outputCompute(l load) uint64 {
	tokens := min(l.batch, max(l.context, 1))
	return times(m.vocab*min(l.outputs, tokens)+4*m.embd*tokens, 4)
}

// layerFloats returns the number of floats for each token that a layer keeps in
// memory at the same time.
func (m *model) layerFloats(i int, l load) uint64 {
	y := m.layers[i]
	rest := 3*m.embd + y.query
	width := y.feed
	if m.gated || m.fusedGate {
		width = 3 * y.feed
	}
	if y.experts > 0 {
		feed := m.used * m.expertFeed
		width = max(3*feed, 2*m.used*m.embd+feed)
	}
	floats := rest + width
	if y.recurrent && m.inner > 0 {
		floats = max(floats, m.project+3*m.inner+3*m.embd)
	}
	if !l.flash && y.keyRow > 0 {
		cells := l.perStream()
		if y.window {
			cells = l.windowCells(m.window)
		}
		floats = max(floats, plus(times(y.heads, cells), 6*max(m.embd, y.query)))
	}
	return floats
}

// maskBytes returns the size of the attention masks. They have one number for each
// token of the batch and each cell of a cache; with flash attention it has two
// bytes.
func (m *model) maskBytes(l load, tokens uint64) uint64 {
	width := uint64(4)
	if l.flash {
		width = 2
	}
	var full, window uint64
	for i := range m.layers {
		switch y := m.layers[i]; {
		case y.query == 0:
		case y.window:
			window = l.windowCells(m.window)
		default:
			full = l.perStream()
		}
	}
	if !m.cached {
		full = tokens
	}
	return times(full+window, tokens*width)
}

// inputBytes returns the size of the host's input for a graph that runs on GPUs:
// the embedded tokens, twice while they are copied, and the masks.
func (m *model) inputBytes(l load) uint64 {
	tokens := min(l.batch, max(l.context, 1))
	return plus(2*m.embd*tokens*4, m.maskBytes(l, tokens))
}
