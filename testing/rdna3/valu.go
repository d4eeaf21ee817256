package rdna3

import (
	"math/bits"
	"strings"
)

// A step is an instruction that is ready to run.
type step struct {
	inst *Inst
	run  func(w *Wave, s *step)
	lane laneFunc
	test func(a, b uint64) bool // of a comparison
	flag Reg                    // where the lanes' bits of the third source or VCC are
	uses bool                   // whether it needs them
	y    *step                  // second half of VOPD

	size     uint64                 // of the instruction
	vectors  uint64                 // 1 for a vector instruction
	slot     uint8                  // which of its recent regions a wave looks at first
	plain    func(w *Wave, s *step) // what computes lane by lane, if run does not
	transfer *transfer
	double   *double
	scalar   *scalarStep
	fastStep
}

// prepareVALU returns the step of a VALU instruction in its fast form if it has one, or nil if there is no code for it.
func prepareVALU(i *Inst) *step {
	s := plainVALU(i)
	if s != nil {
		s.accelerate()
	}
	return s
}

// plainVALU returns the step that computes lane by lane, or nil.
func plainVALU(i *Inst) *step {
	s := &step{inst: i}
	name := i.Op.Name
	switch {
	case special[name] != nil:
		s.run = special[name]
	case packed[name] != nil:
		s.lane, s.run = packed[name], runPacked
		if i.Format != VOP3P {
			i.OpSelHi = 3 // v_pk_fmac_f16 chooses no halves
		}
	case i.Op.Format == VOPC:
		s.test, s.run = compare(strings.Replace(name, "cmpx", "cmp", 1)), runCompare
		if s.test == nil {
			return nil
		}
	default:
		s.lane, s.run = lanes[strings.Replace(name, "v_dual_", "v_", 1)], runLanes
		if s.lane == nil {
			return nil
		}
	}
	s.flag = VCCLo
	switch {
	case strings.Contains(name, "_co_ci_"), strings.Contains(name, "cndmask"):
		s.uses = true
		if i.Format == VOP3 || i.Format == VOP3SD {
			s.flag = i.Src[2]
		}
	case strings.Contains(name, "div_fmas"):
		s.uses = true
	}
	return s
}

// flags returns the lanes' bits that the instruction reads.
func (w *Wave) flags(s *step) uint64 {
	if !s.uses {
		return 0
	}
	return w.scalar(s.inst, s.flag, Kind{Letters: "mask"})
}

// runLanes runs an instruction that computes each lane alone.
func runLanes(w *Wave, s *step) {
	i := s.inst
	w.compute(s)
	k := *i.Op.Dst
	for m := w.active(i); m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		w.put(i, k, l, w.buf[3][l])
	}
}

// compute puts the results of all active lanes into the last buffer, and the carry into its destination.
func (w *Wave) compute(s *step) {
	i := s.inst
	for n := range i.NSrc {
		if i.kind(n).Letters != "mask" {
			w.source(i, n, &w.buf[n])
		}
	}
	e := &w.env
	e.w, e.inst = w, i
	flags, k := w.flags(s), *i.Op.Dst
	accumulates := i.accumulates()
	var out uint64
	a, b, c, d := &w.buf[0], &w.buf[1], &w.buf[2], &w.buf[3]
	for m := w.active(i); m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		e.lane, e.flag, e.out = l, flags>>l&1 != 0, false
		if accumulates {
			e.old = w.flushed(k, w.old(i, k, l))
		}
		d[l] = s.lane(e, a[l], b[l], c[l])
		if e.out {
			out |= 1 << l
		}
	}
	switch {
	case i.Format == VOP3SD:
		w.setMask(i.SDst, out)
	case strings.Contains(i.Op.Name, "_co_ci_"):
		w.setMask(VCCLo, out)
	}
}

// accumulates reports whether the destination is a source as well.
func (i *Inst) accumulates() bool {
	return strings.Contains(i.Op.Name, "fmac") || strings.Contains(i.Op.Name, "dot2acc")
}

// active returns the lanes that write a result: those of EXEC whose source DPP has found.
func (w *Wave) active(i *Inst) uint64 {
	if i.DPP.Kind != 0 {
		return w.exec() &^ w.dppLost
	}
	return w.exec()
}

func runCompare(w *Wave, s *step) {
	i := s.inst
	w.source(i, 0, &w.buf[0])
	w.source(i, 1, &w.buf[1])
	var out uint64
	for m := w.active(i); m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		if s.test(w.buf[0][l], w.buf[1][l]) {
			out |= 1 << l
		}
	}
	if i.Op.isCmpX() {
		w.setExec(out)
		return
	}
	w.setMask(i.Dst, out)
}

// halfOf returns a half of a packed source, negated as the instruction says.
func (i *Inst) halfOf(n int, x uint64, high bool) uint64 {
	sel, neg := i.OpSel, i.Neg
	if high {
		sel, neg = i.OpSelHi, i.NegHi
	}
	if sel>>n&1 != 0 {
		x >>= 16
	}
	if neg>>n&1 != 0 && i.Op.Src[n].Letters == "f" {
		x ^= 1 << 15
	}
	return x & 0xffff
}

// runPacked runs an instruction on both halves of its sources.
func runPacked(w *Wave, s *step) {
	i := s.inst
	for n := range i.NSrc {
		w.source(i, n, &w.buf[n])
	}
	e := &w.env
	e.w, e.inst = w, i
	one := Kind{Letters: i.Op.Dst.Letters, Bits: 16, Count: 1}
	d := w.reg(i.Dst)
	for m := w.active(i); m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		old := d[l]
		var out uint32
		for _, high := range []bool{false, true} {
			var src [3]uint64
			for n := range i.NSrc {
				src[n] = w.flushHalf(i, n, i.halfOf(n, w.buf[n][l], high))
			}
			e.lane, e.old = l, uint64(old&0xffff)
			if high {
				e.old = uint64(old >> 16)
			}
			r := uint32(w.finish(i, one, s.lane(e, src[0], src[1], src[2])) & 0xffff)
			if high {
				r <<= 16
			}
			out |= r
		}
		d[l] = out
	}
}

// flushHalf makes a denormal half zero if the mode says so.
func (w *Wave) flushHalf(i *Inst, n int, x uint64) uint64 {
	if i.Op.Src[n].Letters == "f" && w.mode.flushIn64 && denormal16(x) {
		return x & 0x8000
	}
	return x
}

// runDual runs both halves of VOPD. Both read before either writes.
func runDual(w *Wave, s *step) {
	w.compute(s)
	first := w.buf[3]
	w.compute(s.y)
	kx, ky := *s.inst.Op.Dst, *s.y.inst.Op.Dst
	for m := w.exec(); m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		w.put(s.y.inst, ky, l, w.buf[3][l])
		w.put(s.inst, kx, l, first[l])
	}
}

// permute moves the lanes of the first source as DPP says.
func (w *Wave) permute(i *Inst, x *[64]uint64) {
	in := *x
	exec := w.exec()
	var lost uint64
	for l := range w.lanes {
		from, ok := i.DPP.from(l)
		switch {
		case ok && (i.DPP.FetchInact || exec>>from&1 != 0):
			x[l] = in[from]
		case i.DPP.BoundZero || ok && i.DPP.Kind == dpp8:
			x[l] = 0
		default:
			lost |= 1 << l
		}
		if i.DPP.Kind == dpp16 && (i.DPP.RowMask>>(l/16)&1 == 0 || i.DPP.BankMask>>(l/4%4)&1 == 0) {
			lost |= 1 << l
		}
	}
	w.dppLost = lost
}

// from returns the lane that lane l reads, and whether it exists.
func (d DPP) from(l int) (int, bool) {
	if d.Kind == dpp8 {
		return l&^7 | int(d.Control>>(3*(l&7))&7), true
	}
	row, in, n := l&^15, l&15, int(d.Control&15)
	switch c := d.Control; {
	case c < dppQuad:
		return l&^3 | int(c>>(2*(l&3))&3), true
	case c < dppRowShr:
		return row + in + n, in+n < 16
	case c < dppRowRor:
		return row + in - n, in >= n
	case c < dppMirror:
		return row + (in-n)&15, true
	case c == dppMirror:
		return row + 15 - in, true
	case c == dppHalfMirror:
		return row + in ^ 7, true
	case c < dppRowXmask:
		return row + n, true
	}
	return row + in ^ n, true
}
