package ggufgen

import (
	"encoding/binary"
	"io"
	"math"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// dequantised fills with the numbers of fill's blocks of a type, in single precision.
func dequantised(fill Fill, t gguf.TensorType) Fill {
	return func(w io.Writer, size uint64) error {
		return fill(&dequantiser{w: w, t: t}, size/4/t.BlockElements()*t.BlockBytes())
	}
}

// dequantiser must be given whole blocks.
type dequantiser struct {
	w io.Writer
	t gguf.TensorType
}

// Write implements io.Writer.
func (d *dequantiser) Write(p []byte) (int, error) {
	var out []byte
	size := int(d.t.BlockBytes())
	for at := 0; at < len(p); at += size {
		for i := range int(d.t.BlockElements()) {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(float32(weight(d.t, p[at:at+size], i))))
		}
	}
	if _, err := d.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// weight returns a number of a block. The layouts are those of the block structures in ggml-common.h, and of the functions
// dequantize_row in ggml-quants.c (llama.cpp v0.5.0).
func weight(t gguf.TensorType, b []byte, i int) float64 {
	f16 := func(at int) float64 { return fromHalf(binary.LittleEndian.Uint16(b[at:])) }
	bit := func(at int) int { return int(b[at+i/8] >> (i % 8) & 1) }
	switch t {
	case gguf.F16:
		return f16(0)
	case gguf.Q4_0:
		return f16(0) * float64(nibble(b[2:], 16, i)-8)
	case gguf.Q4_1:
		return f16(0)*float64(nibble(b[4:], 16, i)) + f16(2)
	case gguf.Q5_0:
		return f16(0) * float64(nibble(b[6:], 16, i)+16*bit(2)-16)
	case gguf.Q5_1:
		return f16(0)*float64(nibble(b[8:], 16, i)+16*bit(4)) + f16(2)
	case gguf.Q8_0:
		return f16(0) * float64(int8(b[2+i]))
	case gguf.Q2_K:
		s := b[i/16]
		return f16(80)*float64(s&15)*float64(crumb(b[16:80], i)) - f16(82)*float64(s>>4)
	case gguf.Q3_K:
		high := int(b[i%32] >> (i / 32) & 1) // of a weight
		s := b[96:108]
		n := i / 16
		scale := int(s[n%8]>>(4*(n/8))&15) + int(s[8+n%4]>>(2*(n/4))&3)<<4
		return f16(108) * float64(scale-32) * float64(crumb(b[32:96], i)+4*high-4)
	case gguf.Q4_K:
		scale, least := scaleAndMinimum(b[4:16], i/32)
		return f16(0)*scale*float64(nibble(b[16+i/64*32:], 32, i%64)) - f16(2)*least
	case gguf.Q5_K:
		scale, least := scaleAndMinimum(b[4:16], i/32)
		high := int(b[16+i%32] >> (i / 32) & 1)
		return f16(0)*scale*float64(nibble(b[48+i/64*32:], 32, i%64)+16*high) - f16(2)*least
	case gguf.Q6_K:
		group := i % 128 / 32
		low := b[i/128*64+i%32+group%2*32] >> (group / 2 * 4) & 15
		high := b[128+i/128*32+i%32] >> (2 * group) & 3
		return f16(208) * float64(int8(b[192+i/16])) * float64(int(low)+16*int(high)-32)
	case gguf.IQ4_NL:
		return f16(0) * nonlinear[nibble(b[2:], 16, i)]
	case gguf.IQ4_XS:
		n := i / 32
		low := b[4+n/2] >> (4 * (n % 2)) & 15
		high := binary.LittleEndian.Uint16(b[2:]) >> (2 * n) & 3
		return f16(0) * float64(int(low)+16*int(high)-32) * nonlinear[nibble(b[8+n*16:], 16, i%32)]
	}
	return math.NaN()
}

// nonlinear has the numbers of IQ4_NL and IQ4_XS: kvalues_iq4nl of ggml-common.h.
var nonlinear = [16]float64{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

// nibble returns four bits of weight i of twice n: the bytes have those of the first half in their lower bits.
func nibble(b []byte, n, i int) int { return int(b[i%n] >> (4 * (i / n)) & 15) }

// crumb returns two bits of weight i of 256: a byte has those of four weights that are 32 apart.
func crumb(b []byte, i int) int {
	return int(b[i/128*32+i%32] >> (i % 128 / 32 * 2) & 3)
}

// scaleAndMinimum returns the six bits of each that Q4_K and Q5_K have for 32 weights.
func scaleAndMinimum(b []byte, n int) (scale, least float64) {
	if n < 4 {
		return float64(b[n] & 63), float64(b[n+4] & 63)
	}
	return float64(b[n+4]&15 | b[n-4]>>6<<4), float64(b[n+4]>>4 | b[n]>>6<<4)
}

// fromHalf returns a finite half-precision number.
func fromHalf(h uint16) float64 {
	exp, frac := int(h>>10&31), float64(h&0x3ff)
	x := math.Ldexp(frac, -24)
	if exp > 0 {
		x = math.Ldexp(frac+1024, exp-25)
	}
	return math.Copysign(x, 0.5-float64(h>>15))
}
