package rdna3

import (
	"math/bits"
	"strings"
)

// A scalarFunc computes a scalar instruction and may set SCC. old is the destination from before.
type scalarFunc func(w *Wave, a, b, old uint64) uint64

// scalars has the instructions of SOP1 and SOP2 that only compute a result.
var scalars = map[string]scalarFunc{}

// nonzero adds an instruction that sets SCC if its result is not zero.
func nonzero(name string, width int, f func(a, b uint64) uint64) {
	mask := ^uint64(0) >> (64 - width)
	scalars[name] = func(w *Wave, a, b, _ uint64) uint64 {
		r := f(a, b) & mask
		w.scc = r != 0
		return r
	}
}

// plain adds an instruction that leaves SCC alone.
func plain(name string, f func(a, b uint64) uint64) {
	scalars[name] = func(_ *Wave, a, b, _ uint64) uint64 { return f(a, b) }
}

var logic = map[string]func(a, b uint64) uint64{
	"and": func(a, b uint64) uint64 { return a & b }, "or": func(a, b uint64) uint64 { return a | b },
	"xor": func(a, b uint64) uint64 { return a ^ b }, "nand": func(a, b uint64) uint64 { return ^(a & b) },
	"nor": func(a, b uint64) uint64 { return ^(a | b) }, "xnor": func(a, b uint64) uint64 { return ^(a ^ b) },
	"and_not1": func(a, b uint64) uint64 { return a &^ b }, "or_not1": func(a, b uint64) uint64 { return a | ^b },
	"and_not0": func(a, b uint64) uint64 { return ^a & b }, "or_not0": func(a, b uint64) uint64 { return ^a | b },
}

func init() {
	for name, f := range logic {
		for n, width := range map[string]int{"_b32": 32, "_b64": 64} {
			if !strings.HasSuffix(name, "not0") {
				nonzero("s_"+name+n, width, f)
			}
			mask := ^uint64(0) >> (64 - width)
			scalars["s_"+name+"_saveexec"+n] = func(w *Wave, a, _, _ uint64) uint64 {
				return w.changeExec(width, f(a, w.execOf(width))&mask, true)
			}
			if strings.HasPrefix(name, "and_not") {
				scalars["s_"+name+"_wrexec"+n] = func(w *Wave, a, _, _ uint64) uint64 {
					return w.changeExec(width, f(a, w.execOf(width))&mask, false)
				}
			}
		}
	}
	shiftsAndFields()
	scalarArithmetic()
	scalarBits()
	scalarFloats()
}

// execOf returns the low bits of EXEC.
func (w *Wave) execOf(width int) uint64 {
	x := uint64(w.s[ExecLo]) | uint64(w.s[ExecHi])<<32
	return x & (^uint64(0) >> (64 - width))
}

// changeExec sets EXEC and SCC, and returns EXEC from before or after.
func (w *Wave) changeExec(width int, to uint64, before bool) uint64 {
	was := w.execOf(width)
	w.s[ExecLo] = uint32(to)
	if width == 64 {
		w.s[ExecHi] = uint32(to >> 32)
	}
	w.scc = to != 0
	return pick(before, was, to)
}

func shiftsAndFields() {
	for n, width := range map[string]int{"32": 32, "64": 64} {
		last := uint64(width - 1)
		nonzero("s_lshl_b"+n, width, func(a, b uint64) uint64 { return a << (b & last) })
		nonzero("s_lshr_b"+n, width, func(a, b uint64) uint64 { return a >> (b & last) })
		nonzero("s_ashr_i"+n, width, func(a, b uint64) uint64 { return uint64(sext(a, width) >> (b & last)) })
		nonzero("s_not_b"+n, width, func(a, _ uint64) uint64 { return ^a })
		nonzero("s_bfe_u"+n, width, func(a, b uint64) uint64 { return a >> (b & last) & fieldMask(b) })
		nonzero("s_bfe_i"+n, width, func(a, b uint64) uint64 {
			size := min(int(b>>16&0x7f), width)
			if size == 0 {
				return 0
			}
			return uint64(sext(uint64(sext(a, width)>>(b&last)), size))
		})
		plain("s_bfm_b"+n, func(a, b uint64) uint64 { return (1<<(a&last) - 1) << (b & last) })
		plain("s_mov_b"+n, func(a, _ uint64) uint64 { return a })
		scalars["s_cmov_b"+n] = func(w *Wave, a, _, old uint64) uint64 { return pick(w.scc, a, old) }
		scalars["s_cselect_b"+n] = func(w *Wave, a, b, _ uint64) uint64 { return pick(w.scc, a, b) }
		scalars["s_bitset0_b"+n] = func(_ *Wave, a, _, old uint64) uint64 { return old &^ (1 << (a & last)) }
		scalars["s_bitset1_b"+n] = func(_ *Wave, a, _, old uint64) uint64 { return old | 1<<(a&last) }
	}
}

// fieldMask returns a mask as wide as the size in the upper half of b.
func fieldMask(b uint64) uint64 { return 1<<(b>>16&0x7f) - 1 }

func scalarArithmetic() {
	carry := func(name string, f func(w *Wave, a, b uint64) uint64) {
		scalars[name] = func(w *Wave, a, b, _ uint64) uint64 {
			r := f(w, a, b)
			w.scc = r>>32 != 0
			return r
		}
	}
	carry("s_add_u32", func(_ *Wave, a, b uint64) uint64 { return a + b })
	carry("s_addc_u32", func(w *Wave, a, b uint64) uint64 { return a + b + flagOf(w.scc) })
	carry("s_sub_u32", func(_ *Wave, a, b uint64) uint64 { return a - b })
	carry("s_subb_u32", func(w *Wave, a, b uint64) uint64 { return a - b - flagOf(w.scc) })
	for n := range uint64(4) {
		carry("s_lshl"+string(rune('1'+n))+"_add_u32", func(_ *Wave, a, b uint64) uint64 { return a<<(n+1) + b })
	}
	signed := func(name string, f func(a, b int64) int64) {
		scalars[name] = func(w *Wave, a, b, _ uint64) uint64 {
			r := f(sext(a, 32), sext(b, 32))
			w.scc = r != sext(uint64(r), 32)
			return uint64(r)
		}
	}
	signed("s_add_i32", func(a, b int64) int64 { return a + b })
	signed("s_sub_i32", func(a, b int64) int64 { return a - b })
	nonzero("s_absdiff_i32", 32, func(a, b uint64) uint64 { return absolute(uint64(sext(a, 32) - sext(b, 32))) })
	nonzero("s_abs_i32", 32, func(a, _ uint64) uint64 { return absolute(a) })
	plain("s_mul_i32", func(a, b uint64) uint64 { return a * b })
	plain("s_mul_hi_u32", func(a, b uint64) uint64 { return a * b >> 32 })
	plain("s_mul_hi_i32", func(a, b uint64) uint64 { return uint64(sext(a, 32) * sext(b, 32) >> 32) })
	choose := func(name string, first func(a, b uint64) bool) {
		scalars[name] = func(w *Wave, a, b, _ uint64) uint64 {
			w.scc = first(a, b)
			return pick(w.scc, a, b)
		}
	}
	choose("s_min_i32", func(a, b uint64) bool { return sext(a, 32) < sext(b, 32) })
	choose("s_max_i32", func(a, b uint64) bool { return sext(a, 32) >= sext(b, 32) })
	choose("s_min_u32", func(a, b uint64) bool { return a < b })
	choose("s_max_u32", func(a, b uint64) bool { return a >= b })
	plain("s_pack_ll_b32_b16", func(a, b uint64) uint64 { return a&0xffff | b&0xffff<<16 })
	plain("s_pack_lh_b32_b16", func(a, b uint64) uint64 { return a&0xffff | b&0xffff0000 })
	plain("s_pack_hh_b32_b16", func(a, b uint64) uint64 { return a>>16&0xffff | b&0xffff0000 })
	plain("s_pack_hl_b32_b16", func(a, b uint64) uint64 { return a>>16&0xffff | b&0xffff<<16 })
	plain("s_sext_i32_i8", func(a, _ uint64) uint64 { return uint64(sext(a, 8)) })
	plain("s_sext_i32_i16", func(a, _ uint64) uint64 { return uint64(sext(a, 16)) })
}

// absolute returns the magnitude of a number of 32 bits.
func absolute(a uint64) uint64 {
	if x := sext(a, 32); x < 0 {
		return uint64(-x)
	}
	return a
}

func scalarBits() {
	plain("s_brev_b32", func(a, _ uint64) uint64 { return uint64(bits.Reverse32(uint32(a))) })
	plain("s_brev_b64", func(a, _ uint64) uint64 { return bits.Reverse64(a) })
	plain("s_ctz_i32_b32", func(a, _ uint64) uint64 { return ctz32(uint32(a)) })
	plain("s_ctz_i32_b64", func(a, _ uint64) uint64 { return missing(a, bits.TrailingZeros64(a)) })
	plain("s_clz_i32_u32", func(a, _ uint64) uint64 { return clz32(uint32(a)) })
	plain("s_clz_i32_u64", func(a, _ uint64) uint64 { return missing(a, bits.LeadingZeros64(a)) })
	plain("s_cls_i32", func(a, _ uint64) uint64 { return cls32(uint32(a)) })
	plain("s_cls_i32_i64", func(a, _ uint64) uint64 {
		x := a ^ uint64(int64(a)>>63)
		return missing(x, bits.LeadingZeros64(x))
	})
	nonzero("s_bcnt1_i32_b32", 32, func(a, _ uint64) uint64 { return uint64(bits.OnesCount32(uint32(a))) })
	nonzero("s_bcnt1_i32_b64", 32, func(a, _ uint64) uint64 { return uint64(bits.OnesCount64(a)) })
	nonzero("s_bcnt0_i32_b32", 32, func(a, _ uint64) uint64 { return uint64(bits.OnesCount32(^uint32(a))) })
	nonzero("s_bcnt0_i32_b64", 32, func(a, _ uint64) uint64 { return uint64(bits.OnesCount64(^a)) })
	plain("s_bitreplicate_b64_b32", func(a, _ uint64) (r uint64) {
		for i := range 32 {
			r |= a >> i & 1 * 3 << (2 * i)
		}
		return r
	})
	for n, width := range map[string]int{"32": 32, "64": 64} {
		nonzero("s_quadmask_b"+n, width, func(a, _ uint64) (r uint64) {
			for i := range width / 4 {
				r |= flagOf(a>>(4*i)&15 != 0) << i
			}
			return r
		})
		nonzero("s_wqm_b"+n, width, func(a, _ uint64) (r uint64) {
			for i := range width / 4 {
				r |= flagOf(a>>(4*i)&15 != 0) * 15 << (4 * i)
			}
			return r
		})
	}
}

// missing returns n, or -1 if no bit was there to find.
func missing(x uint64, n int) uint64 {
	if x == 0 {
		return ^uint64(0)
	}
	return uint64(n)
}

// scalarFloats takes the scalar forms of vector instructions.
func scalarFloats() {
	for _, name := range []string{
		"ceil_f32", "floor_f32", "trunc_f32", "rndne_f32", "cvt_f32_i32", "cvt_f32_u32", "cvt_i32_f32", "cvt_u32_f32",
		"cvt_f16_f32", "cvt_f32_f16", "ceil_f16", "floor_f16", "trunc_f16", "rndne_f16", "add_f32", "sub_f32", "min_f32",
		"max_f32", "mul_f32", "fmac_f32", "fmaak_f32", "fmamk_f32", "cvt_pk_rtz_f16_f32", "add_f16", "sub_f16", "min_f16",
		"max_f16", "mul_f16", "fmac_f16",
	} {
		f := lanes["v_"+name]
		scalars["s_"+name] = func(w *Wave, a, b, old uint64) uint64 {
			w.env.w, w.env.inst, w.env.old = w, w.current, old
			return f(&w.env, a, b, 0)
		}
	}
}

func init() {
	plain("s_cvt_hi_f32_f16", func(a, _ uint64) uint64 { return lanes["v_cvt_f32_f16"](nil, a>>16&0xffff, 0, 0) })
}

// prepareSALU returns the step of a scalar instruction, or nil.
func prepareSALU(i *Inst) *step {
	name := i.Op.Name
	switch {
	case control[name] != nil:
		return &step{inst: i, run: control[name]}
	case i.Format == SOPC && strings.HasPrefix(name, "s_bitcmp"):
		want := name[8] == '1'
		return &step{inst: i, run: func(w *Wave, s *step) {
			a, b := w.scalarSources(s.inst)
			w.scc = a>>(b&uint64(i.Op.Src[0].Bits-1))&1 != 0 == want
		}}
	case i.Format == SOPC:
		test := compare(name)
		if test == nil {
			return nil
		}
		s := &step{inst: i, test: test, run: func(w *Wave, s *step) { w.scc = s.test(w.scalarSources(s.inst)) }}
		s.accelerateScalar(nil)
		return s
	case i.Format == SOPK && strings.HasPrefix(name, "s_cmpk"):
		return &step{inst: i, test: compare(strings.Replace(name, "cmpk", "cmp", 1)), run: runCompareK}
	case scalars[name] != nil:
		f := scalars[name]
		s := &step{inst: i, run: func(w *Wave, s *step) { w.runScalar(s.inst, f) }}
		s.accelerateScalar(f)
		return s
	}
	return nil
}

// scalarSources returns the sources of a scalar instruction.
func (w *Wave) scalarSources(i *Inst) (a, b uint64) {
	if i.NSrc > 0 {
		a = w.scalar(i, i.Src[0], i.Op.Src[0])
	}
	if i.NSrc > 1 {
		b = w.scalar(i, i.Src[1], i.Op.Src[1])
	}
	return a, b
}

func (w *Wave) runScalar(i *Inst, f scalarFunc) {
	a, b := w.scalarSources(i)
	w.current = i
	k := *i.Op.Dst
	if k.Bits == 64 {
		w.setS64(i.Dst, f(w, a, b, uint64(w.s[i.Dst])|uint64(w.s[i.Dst+1])<<32))
		return
	}
	w.setS(i.Dst, uint32(w.finish(i, k, f(w, a, b, uint64(w.s[i.Dst])))))
}

func runCompareK(w *Wave, s *step) {
	i := s.inst
	imm := uint64(uint16(i.Imm))
	if strings.HasSuffix(i.Op.Name, "_i32") {
		imm = uint64(int64(i.Imm))
	}
	w.scc = s.test(uint64(w.s[i.Dst]), imm)
}
