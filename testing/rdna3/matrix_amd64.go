package rdna3

import (
	"strings"
	"unsafe"
)

// A matrix is a WMMA instruction that is ready to run. Its plain form in wmma.go computes each element alone;
// TestFastMatrices compares the two.
type matrix struct {
	a, b, c, d int // vector registers; c is -1 for a constant
	constant   uint64
	widen      func(to *[tile][tile]float64, from *uint32, stride int)
	format     narrow // of the sources
	wide       bool   // C and D are float32
	high       bool   // C and D are in the upper halves
	pairs      [2][]vecFunc
}

// pairForms has the forms that split registers of bytes and of nibbles, unsigned and signed.
var pairForms = map[int][2][]vecFunc{
	8: {{pairsEvenU, pairsOddU}, {pairsEvenS, pairsOddS}},
	4: {
		{pairsNibble0U, pairsNibble1U, pairsNibble2U, pairsNibble3U},
		{pairsNibble0S, pairsNibble1S, pairsNibble2S, pairsNibble3S},
	},
}

// accelerateMatrix gives a WMMA instruction its fast form.
func (s *step) accelerateMatrix() {
	i := s.inst
	m := &matrix{a: int(i.Src[0] - VGPR0), b: int(i.Src[1] - VGPR0), c: int(i.Src[2] - VGPR0), d: int(i.Dst - VGPR0), format: half16fmt}
	run, count, signs := runMatrixFloats, 8, i.Neg
	switch i.Op.Name {
	case "v_wmma_f32_16x16x16_f16", "v_wmma_f16_16x16x16_f16":
		m.widen = matrixWidenF16
	case "v_wmma_f32_16x16x16_bf16", "v_wmma_bf16_16x16x16_bf16":
		m.widen, m.format = matrixWidenBF16, bfloat
	case "v_wmma_i32_16x16x16_iu8":
		m.pairs = [2][]vecFunc{pairForms[8][signs&1], pairForms[8][signs>>1&1]}
		run, count, signs = runMatrixIntegers, 4, signs&^3
	case "v_wmma_i32_16x16x16_iu4":
		m.pairs = [2][]vecFunc{pairForms[4][signs&1], pairForms[4][signs>>1&1]}
		run, count, signs = runMatrixIntegers, 2, signs&^3
	default:
		return
	}
	if signs != 0 || i.NegHi != 0 || i.Clamp || !i.Src[0].IsVGPR() || !i.Src[1].IsVGPR() {
		return
	}
	m.wide = strings.HasPrefix(i.Op.Name, "v_wmma_f32") || strings.HasPrefix(i.Op.Name, "v_wmma_i32")
	m.high = i.OpSel&4 != 0
	if !i.Src[2].IsVGPR() {
		if m.c = -1; !i.Src[2].isConstant() {
			return
		}
		bits := 32
		if !m.wide {
			bits = 16
		}
		m.constant = (&Wave{lanes: 32}).scalar(i, i.Src[2], Kind{Letters: i.Op.Dst.Letters, Bits: bits, Count: 1})
	}
	const results = 8 // registers, in waves of 32 lanes
	if max(m.a, m.b)+count > vgprs || max(m.c, m.d)+results > vgprs {
		return
	}
	s.matrix, s.plain, s.run = m, s.run, run
}

// element returns the number in a register of an accumulator of 16 bits.
func (m *matrix) element(x uint32) float64 {
	if m.high {
		x >>= 16
	}
	return m.format.widen(uint64(x & 0xffff))
}

// runMatrixFloats runs the forms on floating-point numbers. The sums are those of the plain form, in its order.
func runMatrixFloats(w *Wave, s *step) {
	m := s.matrix
	a, b, acc := &w.numbers[0], &w.numbers[1], &w.numbers[2]
	m.widen(a, w.lane0(m.a), 4*w.lanes)
	m.widen(b, w.lane0(m.b), 4*w.lanes)
	switch {
	case m.c >= 0 && m.wide:
		matrixFromF32(acc, w.lane0(m.c))
	case m.c >= 0:
		for n, x := range unsafe.Slice(w.lane0(m.c), tile*tile) {
			acc[n/tile][n%tile] = m.element(x)
		}
	default:
		c := single.widen(m.constant)
		if !m.wide {
			c = m.element(uint32(m.constant) | uint32(m.constant)<<16)
		}
		for n := range tile * tile {
			acc[n/tile][n%tile] = c
		}
	}
	matrixProduct(acc, a, b)
	if m.wide {
		matrixToF32(w.lane0(m.d), acc)
		return
	}
	d := unsafe.Slice(w.lane0(m.d), tile*tile)
	for n := range d {
		x := uint32(m.format.round(acc[n/tile][n%tile], toNearest))
		if m.high {
			d[n] = d[n]&0xffff | x<<16
		} else {
			d[n] = d[n]&0xffff0000 | x&0xffff
		}
	}
}

// runMatrixIntegers runs the forms on integers.
func runMatrixIntegers(w *Wave, s *step) {
	m := s.matrix
	a, b := &w.pairs[0], &w.pairs[1]
	m.split(w, m.pairs[0], m.a, a)
	m.split(w, m.pairs[1], m.b, b)
	acc := (*[tile][tile]uint32)(unsafe.Pointer(&w.temp))
	if m.c >= 0 {
		copy(unsafe.Slice(&acc[0][0], tile*tile), unsafe.Slice(w.lane0(m.c), tile*tile))
	} else {
		laneFill(&acc[0][0], uint32(m.constant), tile*tile)
	}
	matrixPairs(acc, a, b)
	copy(unsafe.Slice(w.lane0(m.d), tile*tile), unsafe.Slice(&acc[0][0], tile*tile))
}

// split leaves the numbers of a source in pairs.
func (m *matrix) split(w *Wave, forms []vecFunc, reg int, to *[8][tile]uint32) {
	for n := range to {
		from := w.lane0(reg + n/len(forms))
		forms[n%len(forms)](&to[n][0], from, from, from, tile)
	}
}
