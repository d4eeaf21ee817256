package rdna3

import (
	"math/bits"
	"strings"
)

// special has the VALU instructions that are not computed lane by lane.
var special map[string]func(w *Wave, s *step)

func init() {
	special = map[string]func(w *Wave, s *step){
		"v_nop":                     func(*Wave, *step) {},
		"v_readfirstlane_b32":       readFirstLane,
		"v_readlane_b32":            readLane,
		"v_writelane_b32":           writeLane,
		"v_permlane16_b32":          func(w *Wave, s *step) { w.permlane16(s.inst, 0) },
		"v_permlanex16_b32":         func(w *Wave, s *step) { w.permlane16(s.inst, 16) },
		"v_permlane64_b32":          permlane64,
		"v_swap_b32":                swap,
		"v_fma_mix_f32":             fmaMix,
		"v_fma_mixlo_f16":           fmaMix,
		"v_fma_mixhi_f16":           fmaMix,
		"v_wmma_f32_16x16x16_f16":   func(w *Wave, s *step) { w.wmmaFloat(s.inst, half16fmt, true) },
		"v_wmma_f32_16x16x16_bf16":  func(w *Wave, s *step) { w.wmmaFloat(s.inst, bfloat, true) },
		"v_wmma_f16_16x16x16_f16":   func(w *Wave, s *step) { w.wmmaFloat(s.inst, half16fmt, false) },
		"v_wmma_bf16_16x16x16_bf16": func(w *Wave, s *step) { w.wmmaFloat(s.inst, bfloat, false) },
		"v_wmma_i32_16x16x16_iu8":   func(w *Wave, s *step) { w.wmmaInt(s.inst, 8) },
		"v_wmma_i32_16x16x16_iu4":   func(w *Wave, s *step) { w.wmmaInt(s.inst, 4) },
		"v_movreld_b32":             moveRelative,
		"v_movrels_b32":             moveRelative,
		"v_movrelsd_b32":            moveRelative,
		"v_movrelsd_2_b32":          moveRelative,
	}
}

// lane32 returns a lane of an operand of 32 bits that may be scalar.
func (w *Wave) lane32(i *Inst, r Reg, lane int) uint32 {
	if r.IsVGPR() {
		return w.reg(r)[lane]
	}
	return uint32(w.scalar(i, r, Kind{Letters: "b", Bits: 32, Count: 1}))
}

func readFirstLane(w *Wave, s *step) {
	w.setS(s.inst.Dst, w.lane32(s.inst, s.inst.Src[0], w.lowest()))
}

func readLane(w *Wave, s *step) {
	i := s.inst
	w.setS(i.Dst, w.lane32(i, i.Src[0], int(w.lane32(i, i.Src[1], 0))&(w.lanes-1)))
}

func writeLane(w *Wave, s *step) {
	i := s.inst
	w.reg(i.Dst)[int(w.lane32(i, i.Src[1], 0))&(w.lanes-1)] = w.lane32(i, i.Src[0], 0)
}

// permlane16 moves the lanes of each row of 16 as the selectors say; other is 16 where they come from the row beside.
// op_sel's first bit lets lanes read from inactive ones; without the second, an inactive source leaves the lane alone.
func (w *Wave) permlane16(i *Inst, other int) {
	sel := uint64(w.lane32(i, i.Src[1], 0)) | uint64(w.lane32(i, i.Src[2], 0))<<32
	in := append([]uint32(nil), w.reg(i.Src[0])...)
	d, exec := w.reg(i.Dst), w.exec()
	for l := range w.lanes {
		from := (l&^15 | int(sel>>(4*(l&15))&15)) ^ other
		switch {
		case exec>>l&1 == 0:
		case i.OpSel&1 != 0 || exec>>from&1 != 0:
			d[l] = in[from]
		case i.OpSel&2 != 0:
			d[l] = 0
		}
	}
}

func permlane64(w *Wave, s *step) {
	if w.lanes == 32 {
		return
	}
	in := append([]uint32(nil), w.reg(s.inst.Src[0])...)
	d := w.reg(s.inst.Dst)
	for m := w.exec(); m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		d[l] = in[l^32]
	}
}

func swap(w *Wave, s *step) {
	a, b := w.reg(s.inst.Dst), w.reg(s.inst.Src[0])
	for m := w.exec(); m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		a[l], b[l] = b[l], a[l]
	}
}

// moveRelative moves a register whose number M0 adds to.
func moveRelative(w *Wave, s *step) {
	i := s.inst
	from, to := i.Src[0], i.Dst
	m0 := Reg(w.s[M0])
	switch i.Op.Name {
	case "v_movreld_b32":
		to += m0
	case "v_movrels_b32":
		from += m0
	case "v_movrelsd_b32":
		from, to = from+m0, to+m0
	default:
		from, to = from+m0&0x3ff, to+Reg(w.s[M0]>>16&0x3ff)
	}
	d := w.reg(to)
	for m := w.exec(); m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		d[l] = w.lane32(i, from, l)
	}
}

// fmaMix runs the multiply-adds whose sources are each a float32 or half of a register.
func fmaMix(w *Wave, s *step) {
	i := s.inst
	d := w.reg(i.Dst)
	for m := w.exec(); m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		var x [3]float64
		for n := range x {
			x[n] = w.mixSource(i, n, l)
		}
		sum := single.round(fmaOdd(x[0], x[1], x[2]), w.mode.round32)
		if i.Op.Name == "v_fma_mix_f32" {
			d[l] = uint32(w.finish(i, Kind{Letters: "f", Bits: 32, Count: 1}, sum))
			continue
		}
		h := half16fmt.round(single.widen(sum), w.mode.round64)
		h = w.finish(i, Kind{Letters: "f", Bits: 16, Count: 1}, h)
		if strings.HasPrefix(i.Op.Name, "v_fma_mixhi") {
			d[l] = d[l]&0xffff | uint32(h)<<16
		} else {
			d[l] = d[l]&0xffff0000 | uint32(h)
		}
	}
}

// mixSource returns a source of fmaMix. The bits for the upper negation say that it is an absolute value.
func (w *Wave) mixSource(i *Inst, n, lane int) float64 {
	narrow := i.OpSelHi>>n&1 != 0
	k := Kind{Letters: "f", Bits: 32, Count: 1}
	if narrow {
		k.Bits = 16
	}
	var x uint64
	if i.Src[n].IsVGPR() {
		x = uint64(w.reg(i.Src[n])[lane])
	} else {
		x = w.scalar(i, i.Src[n], k)
	}
	if narrow && i.OpSel>>n&1 != 0 {
		x >>= 16
	}
	t := k.typeOf()
	x &= t.sign()<<1 - 1
	if i.NegHi>>n&1 != 0 {
		x &^= t.sign()
	}
	if i.Neg>>n&1 != 0 {
		x ^= t.sign()
	}
	if w.flushes(t, true) && t.denormal(x) {
		x &= t.sign()
	}
	return t.get(x)
}
