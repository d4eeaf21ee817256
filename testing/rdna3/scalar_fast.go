package rdna3

import "strings"

// A scalarInput is a source of a scalar instruction that is ready to be read.
type scalarInput struct {
	reg      int // -1 for a constant
	wide     bool
	constant uint64
}

// inputOf returns a source, and whether it is one that can be read without looking at the instruction.
func inputOf(i *Inst, n int) (scalarInput, bool) {
	if n >= i.NSrc {
		return scalarInput{reg: -1}, true
	}
	r, k := i.Src[n], i.Op.Src[n]
	switch {
	case k.Letters == "mask" || k.Letters == "f" || k.Count != 1:
		return scalarInput{}, false
	case r < zero:
		return scalarInput{reg: int(r), wide: k.Bits == 64 && r != Null && r != M0}, true
	case r.isConstant():
		return scalarInput{reg: -1, constant: (&Wave{lanes: 32}).scalar(i, r, k)}, true
	}
	return scalarInput{}, false
}

func (w *Wave) input(in *scalarInput) uint64 {
	if in.reg < 0 {
		return in.constant
	}
	x := uint64(w.s[in.reg&127])
	if in.wide {
		x |= uint64(w.s[(in.reg+1)&127]) << 32
	}
	return x
}

// A scalarStep is a scalar instruction that is ready to run. Its plain form in salu.go looks at the kinds of its
// operands each time; TestFastScalars compares the two.
type scalarStep struct {
	f    scalarFunc
	test func(a, b uint64) bool
	a, b scalarInput
	dst  int
	wide bool
}

// accelerateScalar gives a step its fast form, if it has one.
func (s *step) accelerateScalar(f scalarFunc) {
	i := s.inst
	a, okA := inputOf(i, 0)
	b, okB := inputOf(i, 1)
	if !okA || !okB {
		return
	}
	c := &scalarStep{f: f, a: a, b: b, dst: int(i.Dst)}
	if f == nil {
		c.test = s.test
		if t := integerTests[strings.TrimPrefix(i.Op.Name, "s_cmp_")]; t != nil {
			c.test = t
		}
		s.scalar, s.plain, s.run = c, s.run, runFastScalarTest
		return
	}
	k := *i.Op.Dst
	if k.Letters == "f" || k.Letters == "mask" || k.Count != 1 || i.Dst == Null {
		return
	}
	c.wide = k.Bits == 64
	s.scalar, s.plain, s.run = c, s.run, runFastScalar
}

func runFastScalar(w *Wave, s *step) {
	c := s.scalar
	a, b, d := w.input(&c.a), w.input(&c.b), c.dst&127
	old := uint64(w.s[d])
	if !c.wide {
		w.s[d] = uint32(c.f(w, a, b, old))
		return
	}
	old |= uint64(w.s[(d+1)&127]) << 32
	x := c.f(w, a, b, old)
	w.s[d], w.s[(d+1)&127] = uint32(x), uint32(x>>32)
}

func runFastScalarTest(w *Wave, s *step) {
	c := s.scalar
	w.scc = c.test(w.input(&c.a), w.input(&c.b))
}

// integerTests has the comparisons of scalar integers by what follows s_cmp_.
var integerTests = map[string]func(a, b uint64) bool{
	"eq_i32": func(a, b uint64) bool { return uint32(a) == uint32(b) },
	"eq_u32": func(a, b uint64) bool { return uint32(a) == uint32(b) },
	"eq_u64": func(a, b uint64) bool { return a == b },
	"lg_i32": func(a, b uint64) bool { return uint32(a) != uint32(b) },
	"lg_u32": func(a, b uint64) bool { return uint32(a) != uint32(b) },
	"lg_u64": func(a, b uint64) bool { return a != b },
	"lt_i32": func(a, b uint64) bool { return int32(a) < int32(b) },
	"lt_u32": func(a, b uint64) bool { return uint32(a) < uint32(b) },
	"le_i32": func(a, b uint64) bool { return int32(a) <= int32(b) },
	"le_u32": func(a, b uint64) bool { return uint32(a) <= uint32(b) },
	"gt_i32": func(a, b uint64) bool { return int32(a) > int32(b) },
	"gt_u32": func(a, b uint64) bool { return uint32(a) > uint32(b) },
	"ge_i32": func(a, b uint64) bool { return int32(a) >= int32(b) },
	"ge_u32": func(a, b uint64) bool { return uint32(a) >= uint32(b) },
}
