package rdna3

import (
	"math/bits"
	"strings"
)

// ldsAccess returns the access of an instruction on LDS by its name, or nil.
func ldsAccess(name string) *access {
	if a := accessOf(name); a != nil {
		return a
	}
	what := strings.Replace(strings.TrimPrefix(name, "ds_"), "_rtn", "", 1)
	a := atomicAccess(what)
	if a == nil {
		return nil
	}
	a.compare = strings.HasPrefix(what, "cmpstore") || strings.HasPrefix(what, "mskor")
	return a
}

// prepareTwo returns the step of an instruction with two addresses.
func prepareTwo(i *Inst) *step {
	name := i.Op.Name
	size := 4
	if strings.HasSuffix(name, "b64") {
		size = 8
	}
	scale := uint32(size)
	if strings.Contains(name, "stride64") {
		scale *= 64
	}
	a := &access{bytes: 4, dwords: size / 4}
	exchange := strings.Contains(name, "storexchg")
	s := &step{inst: i, run: func(w *Wave, s *step) {
		i := s.inst
		for m := w.exec(); m != 0; m &= m - 1 {
			l := bits.TrailingZeros64(m)
			base := w.reg(i.Addr)[l]
			for n, offset := range []uint8{i.Offset0, i.Offset1} {
				b := w.ldsBytes(base+uint32(offset)*scale, size)
				old := loadN(b)
				if i.Op.Dst == nil || exchange {
					w.storeLane([]Reg{i.Data, i.Data1}[n], a, l, b)
				}
				if i.Op.Dst != nil {
					// The address may be in a destination register, so that results wait.
					w.buf[n][l] = old
				}
			}
		}
		if i.Op.Dst == nil {
			return
		}
		for m := w.exec(); m != 0; m &= m - 1 {
			l := bits.TrailingZeros64(m)
			w.setNumber(i.Dst, l, size, w.buf[0][l])
			w.setNumber(i.Dst+Reg(size/4), l, size, w.buf[1][l])
		}
	}}
	if !exchange {
		s.accelerateTwo(size, scale)
	}
	return s
}

// lds has the instructions that move data between lanes, or have an address of their own kind.
var lds = map[string]func(w *Wave, s *step){
	"ds_nop":              func(*Wave, *step) {},
	"ds_permute_b32":      permuteLanes,
	"ds_bpermute_b32":     bpermuteLanes,
	"ds_swizzle_b32":      swizzle,
	"ds_load_addtid_b32":  func(w *Wave, s *step) { w.addTID(s.inst, false) },
	"ds_store_addtid_b32": func(w *Wave, s *step) { w.addTID(s.inst, true) },
	"ds_append":           func(w *Wave, s *step) { w.count(s.inst, 1) },
	"ds_consume":          func(w *Wave, s *step) { w.count(s.inst, -1) },
}

// lanesOf returns a copy of a register, so that the destination may be the same.
func (w *Wave) lanesOf(r Reg) (out [64]uint32) {
	copy(out[:], w.reg(r))
	return out
}

func permuteLanes(w *Wave, s *step) {
	i := s.inst
	addr, data := w.lanesOf(i.Addr), w.lanesOf(i.Data)
	var out [64]uint32
	exec := w.exec()
	for m := exec; m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		out[(addr[l]+uint32(i.Imm))/4%32|uint32(l)&32] = data[l]
	}
	w.write(i.Dst, exec, &out)
}

// bpermuteLanes reads from a lane of the same half of 32.
func bpermuteLanes(w *Wave, s *step) {
	i := s.inst
	addr, data := w.lanesOf(i.Addr), w.lanesOf(i.Data)
	var out [64]uint32
	exec := w.exec()
	for m := exec; m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		from := (addr[l]+uint32(i.Imm))/4%32 | uint32(l)&32
		if exec>>from&1 != 0 {
			out[l] = data[from]
		}
	}
	w.write(i.Dst, exec, &out)
}

// write sets the active lanes of a register.
func (w *Wave) write(r Reg, exec uint64, x *[64]uint32) {
	d := w.reg(r)
	for m := exec; m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		d[l] = x[l]
	}
}

func swizzle(w *Wave, s *step) {
	i := s.inst
	data, exec := w.lanesOf(i.Addr), w.exec()
	n := uint32(i.Imm)
	var out [64]uint32
	for m := exec; m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		from := swizzleFrom(n, uint32(l))
		if exec>>from&1 != 0 {
			out[l] = data[from]
		}
	}
	w.write(i.Dst, exec, &out)
}

// swizzleFrom returns the lane that a lane reads from by the pattern of ds_swizzle_b32.
func swizzleFrom(n, l uint32) uint32 {
	const rotate, fft = 0xc000, 0xe000
	switch {
	case n >= fft:
		in := l & 31
		j := uint32(bits.Reverse8(uint8(in)))>>3>>bits.OnesCount32(n&31) | l&n&31
		return j | l&32
	case n >= rotate:
		by := field(n, 9, 5)
		if bit(n, 10) {
			by = 32 - by
		}
		keep := n & 31
		return l&32 | l&keep | (l+by)&31&^keep
	case bit(n, 15):
		return l&^3 | n>>(2*(l&3))&3
	}
	return l&32 | (l&field(n, 4, 0) | field(n, 9, 5)) ^ field(n, 14, 10)
}

// addTID accesses LDS at an address that is the lane's number times four.
func (w *Wave) addTID(i *Inst, store bool) {
	base := uint32(i.Imm) + w.s[M0]&0xffff
	for m := w.exec(); m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		b := w.ldsBytes(base+4*uint32(l), 4)
		if store {
			store32(b, w.reg(i.Data)[l])
		} else {
			w.reg(i.Dst)[l] = load32(b)
		}
	}
}

// count adds the number of active lanes to a counter, or subtracts it.
func (w *Wave) count(i *Inst, sign int) {
	b := w.ldsBytes(w.s[M0]>>16+uint32(i.Imm), 4)
	old := load32(b)
	store32(b, old+uint32(sign*bits.OnesCount64(w.exec())))
	for m := w.exec(); m != 0; m &= m - 1 {
		w.reg(i.Dst)[bits.TrailingZeros64(m)] = old
	}
}
