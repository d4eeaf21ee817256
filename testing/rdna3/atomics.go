package rdna3

import "strings"

// An atomicFunc returns what memory has afterwards: old is what it has, x the operand, y the second one.
type atomicFunc func(old, x, y uint64) uint64

// atomicOps has the operations of atomic instructions on numbers of n bits.
func atomicOps(n int) map[string]atomicFunc {
	mask := ^uint64(0) >> (64 - n)
	t := &type32
	if n == 64 {
		t = &type64
	}
	less := func(a, b uint64) bool { return sext(a, n) < sext(b, n) }
	return map[string]atomicFunc{
		"swap": func(_, x, _ uint64) uint64 { return x }, "storexchg": func(_, x, _ uint64) uint64 { return x },
		"cmpswap":  func(old, x, y uint64) uint64 { return pick(old == y, x, old) },
		"cmpstore": func(old, x, y uint64) uint64 { return pick(old == y, x, old) },
		"add_u":    func(old, x, _ uint64) uint64 { return old + x }, "sub_u": func(old, x, _ uint64) uint64 { return old - x },
		"rsub_u": func(old, x, _ uint64) uint64 { return x - old },
		"csub_u": func(old, x, _ uint64) uint64 { return pick(old < x, 0, old-x) },
		"min_i":  func(old, x, _ uint64) uint64 { return pick(less(x, old), x, old) },
		"max_i":  func(old, x, _ uint64) uint64 { return pick(less(x, old), old, x) },
		"min_u":  func(old, x, _ uint64) uint64 { return min(old, x) }, "max_u": func(old, x, _ uint64) uint64 { return max(old, x) },
		"and_b": func(old, x, _ uint64) uint64 { return old & x }, "or_b": func(old, x, _ uint64) uint64 { return old | x },
		"xor_b":     func(old, x, _ uint64) uint64 { return old ^ x },
		"mskor_b":   func(old, x, y uint64) uint64 { return old&^x | y },
		"inc_u":     func(old, x, _ uint64) uint64 { return pick(old >= x, 0, old+1) & mask },
		"dec_u":     func(old, x, _ uint64) uint64 { return pick(old == 0 || old > x, x, old-1) },
		"add_f":     func(old, x, _ uint64) uint64 { return t.put(sumOdd(t.get(old), t.get(x)), toNearest) },
		"min_f":     func(old, x, _ uint64) uint64 { return pick(t.get(x) < t.get(old), x, old) },
		"max_f":     func(old, x, _ uint64) uint64 { return pick(t.get(x) > t.get(old), x, old) },
		"cmpswap_f": func(old, x, y uint64) uint64 { return pick(t.get(old) == t.get(y), x, old) },
	}
}

var atomicsOf = map[int]map[string]atomicFunc{32: atomicOps(32), 64: atomicOps(64)}

// atomicAccess returns the access of an atomic by its name without the prefix: add_u32, cmpswap_b64.
func atomicAccess(what string) *access {
	n := 32
	if strings.HasSuffix(what, "64") {
		n = 64
	}
	what = what[:max(0, len(what)-2)]
	op := atomicsOf[n][what]
	if op == nil {
		op = atomicsOf[n][strings.TrimSuffix(what, "_b")]
	}
	if op == nil {
		return nil
	}
	return &access{bytes: n / 8, dwords: 1, atomic: op, compare: strings.Contains(what, "cmpswap")}
}

// number reads a number of n bytes from the registers of a lane.
func (w *Wave) number(r Reg, lane, n int) uint64 {
	x := uint64(w.reg(r)[lane])
	if n == 8 {
		x |= uint64(w.reg(r + 1)[lane]) << 32
	}
	return x
}

func (w *Wave) setNumber(r Reg, lane, n int, x uint64) {
	w.reg(r)[lane] = uint32(x)
	if n == 8 {
		w.reg(r + 1)[lane] = uint32(x >> 32)
	}
}

// runAtomic changes memory and returns what it had.
func (w *Wave) runAtomic(i *Inst, a *access, lane int, b []byte) {
	x := w.number(i.Data, lane, a.bytes)
	var y uint64
	switch {
	case a.compare && i.Format == DS:
		y = w.number(i.Data1, lane, a.bytes)
	case a.compare:
		y = w.number(i.Data+Reg(a.bytes/4), lane, a.bytes)
	}
	old := w.replace(b, func(old uint64) uint64 { return a.atomic(old, x, y) })
	if i.GLC || i.Format == DS && i.Op.Dst != nil {
		w.setNumber(i.Dst, lane, a.bytes, old)
	}
}

// replace changes a number at the address that was located last.
func (w *Wave) replace(b []byte, f func(old uint64) uint64) uint64 {
	if w.located%uint64(len(b)) != 0 {
		panic(&AlignmentError{Addr: w.located, Size: len(b)})
	}
	return change(b, f)
}
