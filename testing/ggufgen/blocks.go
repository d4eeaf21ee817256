package ggufgen

import (
	"encoding/binary"
	"io"
	"math/rand/v2"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// scale is a half-precision factor in the block of a quantised type.
type scale struct {
	at    int // offset in bytes
	value float64
}

// blockScales returns the factors of a quantised type's block, for random weights with a mean of
// about 0 and a deviation of about 0.1, or 0.2 where a factor would not be a normal half-precision
// number; nil for a type that is not supported. The offsets are those of the block structures in
// ggml-common.h (llama.cpp v0.5.0). Every value of the other bytes is valid.
func blockScales(t gguf.TensorType) []scale {
	switch t {
	case gguf.Q4_0:
		return []scale{{0, 0.022}}
	case gguf.Q4_1:
		return []scale{{0, 0.022}, {2, -7.5 * 0.022}}
	case gguf.Q5_0:
		return []scale{{0, 0.011}}
	case gguf.Q5_1:
		return []scale{{0, 0.011}, {2, -15.5 * 0.011}}
	case gguf.Q8_0:
		return []scale{{0, 0.00135}}
	case gguf.Q2_K:
		return []scale{{80, 0.0074}, {82, 1.5 * 0.0074}}
	case gguf.Q3_K:
		return []scale{{108, 0.0024}}
	case gguf.Q4_K:
		return []scale{{0, 0.0004}, {2, 7.5 * 0.0004}}
	case gguf.Q5_K:
		return []scale{{0, 0.0002}, {2, 15.5 * 0.0002}}
	case gguf.Q6_K:
		return []scale{{208, 0.00013}}
	case gguf.IQ4_NL:
		return []scale{{0, 0.0015}}
	case gguf.IQ4_XS:
		return []scale{{0, 0.00013}}
	}
	return nil
}

// QuantisedTypes returns the quantised types that Tiny writes.
func QuantisedTypes() []gguf.TensorType {
	var out []gguf.TensorType
	for t := gguf.F32; t <= gguf.Q2_0; t++ {
		if blockScales(t) != nil {
			out = append(out, t)
		}
	}
	return out
}

// randomBlocks fills with blocks of a quantised type: random numbers and, between half and one and a
// half of their usual size, the factors.
func randomBlocks(r *rand.Rand, t gguf.TensorType) Fill {
	return func(w io.Writer, size uint64) error {
		block := make([]byte, t.BlockBytes())
		for range size / uint64(len(block)) {
			for i := range block {
				block[i] = byte(r.Uint32())
			}
			factor := 0.5 + r.Float64()
			for _, s := range blockScales(t) {
				binary.LittleEndian.PutUint16(block[s.at:], half(float32(s.value*factor)))
			}
			if _, err := w.Write(block); err != nil {
				return err
			}
		}
		return nil
	}
}
