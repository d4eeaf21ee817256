package rdna3

import "strings"

// lane0 returns the first lane of a vector register.
func (w *Wave) lane0(reg int) *uint32 { return &w.v[reg*w.lanes] }

// sourcesOf reads the sources of a vector, and returns the lanes that write a result.
func (w *Wave) sourcesOf(v *vector, flush bool) (p [3]*uint32, active uint64) {
	active = w.exec()
	for n := range v.n {
		o, t := &v.src[n], &w.temp[n]
		switch o.kind {
		case inVector:
			p[n] = w.lane0(o.reg)
		case inScalar:
			p[n] = &t[0]
			laneFill(p[n], w.s[o.reg&127], w.lanes)
		default:
			p[n] = &o.constant[0]
		}
		if n == 0 && v.dpp != nil {
			active &^= w.rearrange(v.dpp, p[0], t)
			p[0] = &t[0]
		}
		for c := range o.pre {
			c := &o.pre[c]
			c.f(&t[0], p[n], &c.arg[0], &c.arg[0], w.lanes)
			p[n] = &t[0]
		}
		if flush && o.f32 {
			vecFlush32(&t[0], p[n], p[n], p[n], w.lanes)
			p[n] = &t[0]
		}
	}
	for n := v.n; n < len(p); n++ {
		p[n] = p[0]
	}
	return p, active
}

// plainMode reports whether MODE lets fast forms run v, and whether it flushes denormals of 32 bits.
func (w *Wave) plainMode(v *vector) (flush, ok bool) {
	if !v.floats || w.mode.fast {
		return false, true
	}
	return true, w.mode.flushes32
}

// runFast runs the fast form of an instruction, or its plain form where MODE is unusual.
func runFast(w *Wave, s *step) {
	v := s.vector
	flush, ok := w.plainMode(v)
	if !ok {
		s.plain(w, s)
		return
	}
	p, active := w.sourcesOf(v, flush)
	d := w.lane0(v.dst)
	if active == w.all && v.post == nil && v.half == nil && !flush {
		v.form(d, p[0], p[1], p[2], w.lanes)
		return
	}
	t := &w.temp[3][0]
	w.result(v, t, p, flush)
	laneSelect(d, d, t, active, w.lanes)
}

// result computes the lanes of the destination into t.
func (w *Wave) result(v *vector, t *uint32, p [3]*uint32, flush bool) {
	v.form(t, p[0], p[1], p[2], w.lanes)
	for n := range v.post {
		v.post[n].f(t, t, t, t, w.lanes)
	}
	if flush && v.f32 {
		vecFlush32(t, t, t, t, w.lanes)
	}
	if v.half != nil {
		d := w.lane0(v.dst)
		v.half(t, t, d, d, w.lanes)
	}
}

// runFastTest runs a comparison.
func runFastTest(w *Wave, s *step) {
	v := s.vector
	flush, ok := w.plainMode(v)
	if !ok {
		s.plain(w, s)
		return
	}
	p, active := w.sourcesOf(v, flush)
	a, b := p[0], p[1]
	if v.test.swap {
		a, b = b, a
	}
	out := v.test.f(a, b, w.lanes)
	if v.test.invert {
		out = ^out
	}
	out &= active
	if s.exec {
		w.setExec(out)
		return
	}
	w.setMask(s.inst.Dst, out)
}

// runFastDual runs both halves of VOPD. The halves that read what the other writes have been left to runDual.
func runFastDual(w *Wave, s *step) {
	x, y := s.first.vector, s.second.vector
	_, okX := w.plainMode(x)
	_, okY := w.plainMode(y)
	if !okX || !okY {
		s.plain(w, s)
		return
	}
	s.first.run(w, s.first)
	s.second.run(w, s.second)
}

// runFastSelect runs v_cndmask_b32.
func runFastSelect(w *Wave, s *step) {
	v := s.vector
	p, active := w.sourcesOf(v, false)
	d, flags := w.lane0(v.dst), w.flags(s)
	if active == w.all {
		laneSelect(d, p[0], p[1], flags, w.lanes)
		return
	}
	t := &w.temp[3][0]
	laneSelect(t, p[0], p[1], flags, w.lanes)
	laneSelect(d, d, t, active, w.lanes)
}

// runFastCarry runs the additions and subtractions with a carry. Its form is in carry.
func runFastCarry(w *Wave, s *step) {
	v, c := s.vector, s.carry
	p, active := w.sourcesOf(v, false)
	a, b := p[0], p[1]
	if c.swap {
		a, b = b, a
	}
	d, t := w.lane0(v.dst), &w.temp[3][0]
	out := c.f(t, a, b, w.flags(s), w.lanes)
	laneSelect(d, d, t, active, w.lanes)
	w.setMask(c.dst, out&active)
}

// accelerate gives a step its fast form, if it has one.
func (s *step) accelerate() {
	i := s.inst
	if i.Format == VOP3P && i.DPP.Kind != 0 || !hasLanes {
		return
	}
	name := strings.Replace(i.Op.Name, "v_dual_", "v_", 1)
	if strings.HasPrefix(name, "v_wmma") {
		s.accelerateMatrix()
		return
	}
	if name == "v_cndmask_b32" {
		s.vector = &vector{n: 2, dst: int(i.Dst - VGPR0)}
		if !s.vector.sources(i) {
			s.vector = nil
			return
		}
		s.plain, s.run = s.run, runFastSelect
		return
	}
	if c, ok := carryForms[name]; ok && !i.Clamp {
		s.vector = &vector{n: 2, dst: int(i.Dst - VGPR0)}
		if !s.vector.sources(i) {
			s.vector = nil
			return
		}
		c.dst = VCCLo
		if i.Format == VOP3SD {
			c.dst = i.SDst
		}
		s.carry, s.plain, s.run = &c, s.run, runFastCarry
		return
	}
	v := compileVector(i)
	switch {
	case v == nil:
	case v.test != nil:
		s.vector, s.plain, s.run, s.exec = v, s.run, runFastTest, i.Op.isCmpX()
	default:
		s.vector, s.plain, s.run = v, s.run, runFast
	}
}

// accelerateDual gives a dual instruction its fast form, if both halves have one and can run one after the other.
func (s *step) accelerateDual(x, y *step) {
	if x.vector == nil || y.vector == nil {
		return
	}
	switch {
	case !y.vector.reads(x.vector.dst):
		s.first, s.second = x, y
	case !x.vector.reads(y.vector.dst):
		s.first, s.second = y, x
	default:
		return
	}
	s.plain, s.run = s.run, runFastDual
}

// reads reports whether a vector register is a source.
func (v *vector) reads(reg int) bool {
	for _, o := range v.src[:v.n] {
		if o.kind == inVector && o.reg == reg {
			return true
		}
	}
	return false
}

// A carryForm is an addition or subtraction with a carry.
type carryForm struct {
	f    func(d, a, b *uint32, mask uint64, n int) uint64
	swap bool
	dst  Reg
}

var carryForms = map[string]carryForm{
	"v_add_co_u32": {f: laneAddCarry}, "v_add_co_ci_u32": {f: laneAddCarry},
	"v_sub_co_u32": {f: laneSubBorrow}, "v_sub_co_ci_u32": {f: laneSubBorrow},
	"v_subrev_co_u32": {f: laneSubBorrow, swap: true}, "v_subrev_co_ci_u32": {f: laneSubBorrow, swap: true},
}

// A fastStep is what a step has for its fast form.
type fastStep struct {
	vector        *vector
	matrix        *matrix
	carry         *carryForm
	exec          bool  // a comparison writes EXEC
	first, second *step // the halves of a dual instruction
}
