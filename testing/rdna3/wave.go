package rdna3

import (
	"math"
	"math/bits"
)

// A mode is the part of the MODE register that changes results.
type mode struct {
	round32, round64       rounding
	flushIn32, flushOut32  bool
	flushIn64, flushOut64  bool // of numbers of 16 and 64 bits
	ieee, dx10Clamp, plain bool // plain: to nearest, with denormals
	fast                   bool // as compilers set it: to nearest, with denormals, IEEE's NaNs
	flushes32              bool // as fast, but with denormals of 32 bits flushed
}

// setMode sets the mode from the bits of the register.
func (w *Wave) setMode(b uint32) {
	w.modeBits = b
	w.mode = mode{
		round32: rounding(b & 3), round64: rounding(b >> 2 & 3),
		flushIn32: b>>4&1 == 0, flushOut32: b>>5&1 == 0, flushIn64: b>>6&1 == 0, flushOut64: b>>7&1 == 0,
		dx10Clamp: b>>8&1 != 0, ieee: b>>9&1 != 0,
	}
	m := &w.mode
	m.plain = m.round32 == toNearest && !m.flushIn32 && !m.flushOut32
	usual := m.round32 == toNearest && m.round64 == toNearest && !m.flushIn64 && !m.flushOut64 && m.ieee && m.dx10Clamp
	m.fast, m.flushes32 = usual && m.plain, usual && m.flushIn32 && m.flushOut32
}

const vgprs = 256

// A Wave runs a kernel on 32 or 64 lanes.
type Wave struct {
	s        [128]uint32
	v        []uint32 // registers one after the other, each with all lanes
	lanes    int
	scc      bool
	pc       uint64
	mode     mode
	modeBits uint32

	group       *group
	near        [nearby]*Region // of the last accesses
	located     uint64          // address of the last access, in lanes one by one
	addr        [64]uint64      // of each lane, for all at once
	scratch     []byte
	scratchSize int // of a lane
	env         env
	current     *Inst  // that a scalar instruction in lanes looks at
	at          uint64 // address of the instruction that runs, or ran last
	buf         [4][64]uint64
	numbers     [3][tile][tile]float64 // matrices
	pairs       [2][8][tile]uint32
	temp        [4][64]uint32 // sources and results of fast forms
	all         uint64        // a bit for each lane

	dppLost        uint64 // lanes without a source in the current instruction
	ended, waiting bool
	executed       uint64 // instructions
	vectors        uint64 // of these, vector instructions
}

// newWave returns a wave of a number of lanes.
func newWave(lanes int) *Wave {
	return &Wave{lanes: lanes, all: ^uint64(0) >> (64 - lanes), v: make([]uint32, vgprs*lanes)}
}

// exec returns the lanes that are active.
func (w *Wave) exec() uint64 {
	if w.lanes == 32 {
		return uint64(w.s[ExecLo])
	}
	return uint64(w.s[ExecLo]) | uint64(w.s[ExecHi])<<32
}

func (w *Wave) setExec(m uint64) { w.setMask(ExecLo, m) }

// mask returns the bits of a lane mask at r.
func (w *Wave) mask(r Reg) uint64 {
	if w.lanes == 32 {
		return uint64(w.s[r])
	}
	return uint64(w.s[r]) | uint64(w.s[r+1])<<32
}

func (w *Wave) setMask(r Reg, m uint64) {
	w.setS(r, uint32(m))
	if w.lanes == 64 && r != Null {
		w.setS(r+1, uint32(m>>32))
	}
}

// setS sets a scalar register. Writes to null are lost.
func (w *Wave) setS(r Reg, x uint32) {
	if r != Null {
		w.s[r] = x
	}
}

func (w *Wave) setS64(r Reg, x uint64) {
	if r != Null {
		w.s[r], w.s[r+1] = uint32(x), uint32(x>>32)
	}
}

// reg returns the lanes of a vector register.
func (w *Wave) reg(r Reg) []uint32 {
	at := int(r-VGPR0) * w.lanes
	return w.v[at : at+w.lanes : at+w.lanes]
}

var inlineFloats = [...]float64{0.5, -0.5, 1, -1, 2, -2, 4, -4, 1 / (2 * math.Pi)}

// scalar returns an operand that is the same for all lanes.
func (w *Wave) scalar(i *Inst, r Reg, k Kind) uint64 {
	wide := k.Bits == 64 && k.Count == 1
	switch {
	case k.Letters == "mask" && r < zero:
		return w.mask(r)
	case r < zero && wide && r != Null && r != M0:
		return uint64(w.s[r]) | uint64(w.s[r+1])<<32
	case r < zero:
		return uint64(w.s[r])
	case r <= lastPos:
		return uint64(r - zero)
	case r <= lastNeg:
		n := uint64(-int64(r - lastPos))
		if k.Bits == 32 && k.Count == 1 {
			return uint64(uint32(n)) // as wide as a register
		}
		return n
	case r >= half && r <= inv2Pi:
		return inlineFloat(r, k)
	}
	switch r {
	case literal:
		return widenLiteral(i.Literal, k)
	case sharedBase:
		return SharedAperture
	case sharedBase + 1:
		return SharedAperture + apertureSize - 1
	case privateBase:
		return PrivateAperture
	case privateBase + 1:
		return PrivateAperture + apertureSize - 1
	case VCCZ:
		return flagOf(w.mask(VCCLo) == 0)
	case EXECZ:
		return flagOf(w.exec() == 0)
	case SCC:
		return flagOf(w.scc)
	}
	panic(&OperandError{r})
}

func flagOf(b bool) uint64 { return pick(b, 1, 0) }

// isConstant reports whether an operand has the same value in every wave.
func (r Reg) isConstant() bool {
	return r >= zero && r <= lastNeg || r >= half && r <= inv2Pi || r == literal || r >= sharedBase && r <= privateBase+1
}

// inlineFloat returns a constant in the format of the operand.
func inlineFloat(r Reg, k Kind) uint64 {
	x := inlineFloats[r-half]
	switch k.Bits {
	case 64:
		return b64(x)
	case 16:
		if k.Letters == "bf" {
			return bfloat.round(x, toNearest)
		}
		if k.Letters == "f" {
			return toF16(x)
		}
	}
	return b32(float32(x))
}

// widenLiteral returns a literal of 32 bits as an operand: the upper half of a float64.
func widenLiteral(x uint32, k Kind) uint64 {
	switch {
	case k.Bits == 64 && k.Letters == "f":
		return uint64(x) << 32
	case k.Bits == 64 && k.Letters == "i":
		return uint64(int64(int32(x)))
	}
	return uint64(x)
}

// source fills out with a source of a VALU instruction for all lanes.
func (w *Wave) source(i *Inst, n int, out *[64]uint64) {
	r, k := i.Src[n], i.kind(n)
	if !r.IsVGPR() {
		x := w.scalar(i, r, k)
		if high, _ := i.half16(VGPR0, k, n); high && r < zero {
			x >>= 16 // op_sel of a scalar register
		}
		x = w.modify(i, n, k, x)
		for l := range w.lanes {
			out[l] = x
		}
		return
	}
	high, is16 := i.half16(r, k, n)
	if is16 && high && i.Format != VOP3 && i.Format != VOP3SD {
		r -= 128
	}
	for l, x := range w.reg(r) {
		out[l] = uint64(x)
	}
	switch {
	case k.Bits == 64 && k.Count == 1:
		for l, x := range w.reg(r + 1) {
			out[l] |= uint64(x) << 32
		}
	case is16:
		shift := 0
		if high {
			shift = 16
		}
		for l := range w.lanes {
			out[l] = out[l] >> shift & 0xffff
		}
	}
	if n == 0 && i.DPP.Kind != 0 {
		w.permute(i, out)
	}
	if i.Neg|i.Abs != 0 || k.Letters == "f" && !w.mode.plain {
		for l := range w.lanes {
			out[l] = w.modify(i, n, k, out[l])
		}
	}
}

// typeOf returns the floating-point type of an operand, or nil.
func (k Kind) typeOf() *floatType {
	if k.Letters != "f" {
		return nil
	}
	switch k.Bits {
	case 16:
		return &type16
	case 32:
		return &type32
	case 64:
		return &type64
	}
	return nil
}

// modify applies the negation, the absolute value and the flush of denormals of a source.
func (w *Wave) modify(i *Inst, n int, k Kind, x uint64) uint64 {
	if i.Format != VOP3P && (i.Neg|i.Abs)>>n&1 != 0 {
		sign := uint64(1) << (k.Bits - 1)
		if i.Abs>>n&1 != 0 {
			x &^= sign
		}
		if i.Neg>>n&1 != 0 {
			x ^= sign
		}
	}
	return w.flushed(k, x)
}

// flushed returns a source, or zero with its sign where MODE flushes it.
func (w *Wave) flushed(k Kind, x uint64) uint64 {
	if t := k.typeOf(); t != nil && k.Count == 1 && w.flushes(t, true) && t.denormal(x) {
		x &= t.sign()
	}
	return x
}

// flushes reports whether denormals of a type become zero.
func (w *Wave) flushes(t *floatType, in bool) bool {
	switch {
	case t.bits == 32 && in:
		return w.mode.flushIn32
	case t.bits == 32:
		return w.mode.flushOut32
	case in:
		return w.mode.flushIn64
	}
	return w.mode.flushOut64
}

// finish applies what an instruction does to its result: output modifier, clamp and flush of denormals.
func (w *Wave) finish(i *Inst, k Kind, x uint64) uint64 {
	t := k.typeOf()
	if t == nil || k.Count != 1 {
		return x
	}
	if i.Omod != 0 {
		x = t.put(t.get(x)*[4]float64{1, 2, 4, 0.5}[i.Omod], w.roundingOf(t))
	}
	if i.Clamp {
		switch v := t.get(x); {
		case t.isNaN(x) && !w.mode.dx10Clamp:
		case t.isNaN(x), v <= 0:
			x = 0
		case v > 1:
			x = t.put(1, toNearest)
		}
	}
	if w.flushes(t, false) && t.denormal(x) {
		x &= t.sign()
	}
	return x
}

func (w *Wave) roundingOf(t *floatType) rounding {
	if t.bits == 32 {
		return w.mode.round32
	}
	return w.mode.round64
}

// put stores a lane's result.
func (w *Wave) put(i *Inst, k Kind, lane int, x uint64) {
	x = w.finish(i, k, x)
	high, is16 := i.half16(i.Dst, k, 3)
	r := i.Dst
	if is16 && high && i.Format != VOP3 && i.Format != VOP3SD {
		r -= 128
	}
	d := &w.v[int(r-VGPR0)*w.lanes+lane]
	switch {
	case k.Bits*k.Count == 64:
		*d = uint32(x)
		w.v[int(r+1-VGPR0)*w.lanes+lane] = uint32(x >> 32)
	case is16 && high:
		*d = *d&0xffff | uint32(x)<<16
	case is16:
		*d = *d&0xffff0000 | uint32(x)&0xffff
	default:
		*d = uint32(x)
	}
}

// old returns a lane's value of the destination from before.
func (w *Wave) old(i *Inst, k Kind, lane int) uint64 {
	high, is16 := i.half16(i.Dst, k, 3)
	r := i.Dst
	if is16 && high && i.Format != VOP3 && i.Format != VOP3SD {
		r -= 128
	}
	x := uint64(w.v[int(r-VGPR0)*w.lanes+lane])
	switch {
	case is16 && high:
		return x >> 16
	case is16:
		return x & 0xffff
	case k.Bits*k.Count == 64:
		return x | uint64(w.v[int(r+1-VGPR0)*w.lanes+lane])<<32
	}
	return x
}

// lowest returns the first active lane, or lane 0 if there is none.
func (w *Wave) lowest() int {
	if m := w.exec(); m != 0 {
		return bits.TrailingZeros64(m)
	}
	return 0
}
