package gguf

import "fmt"

// TensorType is the storage type of a tensor, numbered as in ggml.
type TensorType uint32

// The storage types that appear in GGUF files. Numbers that ggml has retired
// (4, 5, 31 to 33, 36 to 38) have no name here; the reader rejects them.
const (
	F32     TensorType = 0
	F16     TensorType = 1
	Q4_0    TensorType = 2
	Q4_1    TensorType = 3
	Q5_0    TensorType = 6
	Q5_1    TensorType = 7
	Q8_0    TensorType = 8
	Q8_1    TensorType = 9
	Q2_K    TensorType = 10
	Q3_K    TensorType = 11
	Q4_K    TensorType = 12
	Q5_K    TensorType = 13
	Q6_K    TensorType = 14
	Q8_K    TensorType = 15
	IQ2_XXS TensorType = 16
	IQ2_XS  TensorType = 17
	IQ3_XXS TensorType = 18
	IQ1_S   TensorType = 19
	IQ4_NL  TensorType = 20
	IQ3_S   TensorType = 21
	IQ2_S   TensorType = 22
	IQ4_XS  TensorType = 23
	I8      TensorType = 24
	I16     TensorType = 25
	I32     TensorType = 26
	I64     TensorType = 27
	F64     TensorType = 28
	IQ1_M   TensorType = 29
	BF16    TensorType = 30
	TQ1_0   TensorType = 34
	TQ2_0   TensorType = 35
	MXFP4   TensorType = 39
	NVFP4   TensorType = 40
	Q1_0    TensorType = 41
	Q2_0    TensorType = 42
)

// layout describes the storage of elements: block elements are stored in size bytes.
// A zero block means an unknown type.
type layout struct {
	name  string
	block uint64
	size  uint64
	quant bool
}

// typeLayout returns the block layout of t, from ggml's type table (ggml.c) and
// its block structures (ggml-common.h) as of llama.cpp v0.5.0.
func typeLayout(t TensorType) layout {
	switch t {
	case F32:
		return layout{"F32", 1, 4, false}
	case F16:
		return layout{"F16", 1, 2, false}
	case BF16:
		return layout{"BF16", 1, 2, false}
	case F64:
		return layout{"F64", 1, 8, false}
	case I8:
		return layout{"I8", 1, 1, false}
	case I16:
		return layout{"I16", 1, 2, false}
	case I32:
		return layout{"I32", 1, 4, false}
	case I64:
		return layout{"I64", 1, 8, false}
	case Q1_0:
		return layout{"Q1_0", 128, 18, true}
	case Q2_0:
		return layout{"Q2_0", 64, 18, true}
	case Q4_0:
		return layout{"Q4_0", 32, 18, true}
	case Q4_1:
		return layout{"Q4_1", 32, 20, true}
	case Q5_0:
		return layout{"Q5_0", 32, 22, true}
	case Q5_1:
		return layout{"Q5_1", 32, 24, true}
	case Q8_0:
		return layout{"Q8_0", 32, 34, true}
	case Q8_1:
		return layout{"Q8_1", 32, 36, true}
	case MXFP4:
		return layout{"MXFP4", 32, 17, true}
	case NVFP4:
		return layout{"NVFP4", 64, 36, true}
	}
	return superBlockLayout(t)
}

// superBlockLayout is typeLayout for the types with blocks of 256 elements,
// and IQ4_NL, the one of their family with blocks of 32.
func superBlockLayout(t TensorType) layout {
	switch t {
	case Q2_K:
		return layout{"Q2_K", 256, 84, true}
	case Q3_K:
		return layout{"Q3_K", 256, 110, true}
	case Q4_K:
		return layout{"Q4_K", 256, 144, true}
	case Q5_K:
		return layout{"Q5_K", 256, 176, true}
	case Q6_K:
		return layout{"Q6_K", 256, 210, true}
	case Q8_K:
		return layout{"Q8_K", 256, 292, true}
	case IQ2_XXS:
		return layout{"IQ2_XXS", 256, 66, true}
	case IQ2_XS:
		return layout{"IQ2_XS", 256, 74, true}
	case IQ2_S:
		return layout{"IQ2_S", 256, 82, true}
	case IQ3_XXS:
		return layout{"IQ3_XXS", 256, 98, true}
	case IQ3_S:
		return layout{"IQ3_S", 256, 110, true}
	case IQ1_S:
		return layout{"IQ1_S", 256, 50, true}
	case IQ1_M:
		return layout{"IQ1_M", 256, 56, true}
	case IQ4_NL:
		return layout{"IQ4_NL", 32, 18, true}
	case IQ4_XS:
		return layout{"IQ4_XS", 256, 136, true}
	case TQ1_0:
		return layout{"TQ1_0", 256, 54, true}
	case TQ2_0:
		return layout{"TQ2_0", 256, 66, true}
	}
	return layout{}
}

// Known reports whether t is a storage type that a file may use today.
func (t TensorType) Known() bool { return typeLayout(t).block != 0 }

// Quantised reports whether t stores blocks with shared scales.
func (t TensorType) Quantised() bool { return typeLayout(t).quant }

// BlockElements is how many elements one block holds, 0 for an unknown type.
func (t TensorType) BlockElements() uint64 { return typeLayout(t).block }

// BlockBytes is how many bytes one block takes, 0 for an unknown type.
func (t TensorType) BlockBytes() uint64 { return typeLayout(t).size }

// RowBytes returns the bytes of a row of n elements. It fails for an unknown
// type, for an n that is no multiple of the block and on overflow.
func (t TensorType) RowBytes(n uint64) (uint64, error) {
	l := typeLayout(t)
	if l.block == 0 {
		return 0, fmt.Errorf("tensor type %d is unknown", uint32(t))
	}
	if n%l.block != 0 {
		return 0, fmt.Errorf("%d elements are not a multiple of the %s block of %d", n, l.name, l.block)
	}
	b, ok := mul(n/l.block, l.size)
	if !ok {
		return 0, fmt.Errorf("a row of %d elements overflows", n)
	}
	return b, nil
}

// String returns ggml's name in upper case ("Q4_K"), or the number.
func (t TensorType) String() string {
	if l := typeLayout(t); l.block != 0 {
		return l.name
	}
	return fmt.Sprintf("type(%d)", uint32(t))
}

// mul multiplies and reports whether the product fits 64 bits.
func mul(a, b uint64) (uint64, bool) {
	if a == 0 || b == 0 {
		return 0, true
	}
	p := a * b
	return p, p/a == b
}
