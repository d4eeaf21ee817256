package rdna3

import (
	"math/bits"
)

// An env is what a lane's operation sees besides its operands.
type env struct {
	w    *Wave
	inst *Inst
	lane int
	old  uint64 // the destination's value from before
	flag bool   // this lane's bit of VCC, or of the mask in the third source
	out  bool   // this lane's bit of the carry or the comparison that the operation returns
}

// A laneFunc computes one lane of a VALU instruction. Operands and result are the bits of the numbers.
type laneFunc func(e *env, a, b, c uint64) uint64

// sext returns the low n bits of x as a signed number.
func sext(x uint64, n int) int64 { return int64(x<<(64-n)) >> (64 - n) }

// flagBit returns the lane's bit of VCC as a number.
func (e *env) flagBit() uint64 {
	if e.flag {
		return 1
	}
	return 0
}

func pick(which bool, yes, no uint64) uint64 {
	if which {
		return yes
	}
	return no
}

func addCarry(e *env, a, b, c uint64) uint64 {
	s := a&0xffffffff + b&0xffffffff + c
	e.out = s>>32 != 0
	return s
}

func subBorrow(e *env, a, b, c uint64) uint64 {
	a, b = a&0xffffffff, b&0xffffffff
	e.out = b+c > a
	return a - b - c
}

// lanes has the operation of each VALU instruction by name.
var lanes = map[string]laneFunc{
	"v_mov_b32":     func(_ *env, a, _, _ uint64) uint64 { return a },
	"v_mov_b16":     func(_ *env, a, _, _ uint64) uint64 { return a },
	"v_not_b32":     func(_ *env, a, _, _ uint64) uint64 { return ^a },
	"v_not_b16":     func(_ *env, a, _, _ uint64) uint64 { return ^a },
	"v_bfrev_b32":   func(_ *env, a, _, _ uint64) uint64 { return uint64(bits.Reverse32(uint32(a))) },
	"v_clz_i32_u32": func(_ *env, a, _, _ uint64) uint64 { return clz32(uint32(a)) },
	"v_ctz_i32_b32": func(_ *env, a, _, _ uint64) uint64 { return ctz32(uint32(a)) },
	"v_cls_i32":     func(_ *env, a, _, _ uint64) uint64 { return cls32(uint32(a)) },
	"v_cvt_i32_i16": func(_ *env, a, _, _ uint64) uint64 { return uint64(sext(a, 16)) },
	"v_cvt_u32_u16": func(_ *env, a, _, _ uint64) uint64 { return a & 0xffff },
	"v_sat_pk_u8_i16": func(_ *env, a, _, _ uint64) uint64 {
		return clamp(sext(a, 16), 0, 255) | clamp(sext(a>>16, 16), 0, 255)<<8
	},

	"v_and_b32": func(_ *env, a, b, _ uint64) uint64 { return a & b }, "v_and_b16": func(_ *env, a, b, _ uint64) uint64 { return a & b },
	"v_or_b32": func(_ *env, a, b, _ uint64) uint64 { return a | b }, "v_or_b16": func(_ *env, a, b, _ uint64) uint64 { return a | b },
	"v_xor_b32": func(_ *env, a, b, _ uint64) uint64 { return a ^ b }, "v_xor_b16": func(_ *env, a, b, _ uint64) uint64 { return a ^ b },
	"v_xnor_b32":    func(_ *env, a, b, _ uint64) uint64 { return ^(a ^ b) },
	"v_lshlrev_b32": func(_ *env, a, b, _ uint64) uint64 { return b << (a & 31) },
	"v_lshrrev_b32": func(_ *env, a, b, _ uint64) uint64 { return b & 0xffffffff >> (a & 31) },
	"v_ashrrev_i32": func(_ *env, a, b, _ uint64) uint64 { return uint64(sext(b, 32) >> (a & 31)) },
	"v_lshlrev_b16": func(_ *env, a, b, _ uint64) uint64 { return b << (a & 15) },
	"v_lshrrev_b16": func(_ *env, a, b, _ uint64) uint64 { return b & 0xffff >> (a & 15) },
	"v_ashrrev_i16": func(_ *env, a, b, _ uint64) uint64 { return uint64(sext(b, 16) >> (a & 15)) },
	"v_lshlrev_b64": func(_ *env, a, b, _ uint64) uint64 { return b << (a & 63) },
	"v_lshrrev_b64": func(_ *env, a, b, _ uint64) uint64 { return b >> (a & 63) },
	"v_ashrrev_i64": func(_ *env, a, b, _ uint64) uint64 { return uint64(int64(b) >> (a & 63)) },

	"v_mul_lo_u32":     func(_ *env, a, b, _ uint64) uint64 { return a * b },
	"v_mul_hi_u32":     func(_ *env, a, b, _ uint64) uint64 { return a & 0xffffffff * (b & 0xffffffff) >> 32 },
	"v_mul_hi_i32":     func(_ *env, a, b, _ uint64) uint64 { return uint64(sext(a, 32) * sext(b, 32) >> 32) },
	"v_mul_i32_i24":    func(_ *env, a, b, _ uint64) uint64 { return uint64(sext(a, 24) * sext(b, 24)) },
	"v_mul_hi_i32_i24": func(_ *env, a, b, _ uint64) uint64 { return uint64(sext(a, 24) * sext(b, 24) >> 32) },
	"v_mul_u32_u24":    func(_ *env, a, b, _ uint64) uint64 { return a & 0xffffff * (b & 0xffffff) },
	"v_mul_hi_u32_u24": func(_ *env, a, b, _ uint64) uint64 { return a & 0xffffff * (b & 0xffffff) >> 32 },
	"v_mad_i32_i24":    func(_ *env, a, b, c uint64) uint64 { return uint64(sext(a, 24)*sext(b, 24)) + c },
	"v_mad_u32_u24":    func(_ *env, a, b, c uint64) uint64 { return a&0xffffff*(b&0xffffff) + c },
	"v_mad_u32_u16":    func(_ *env, a, b, c uint64) uint64 { return a&0xffff*(b&0xffff) + c },
	"v_mad_i32_i16":    func(_ *env, a, b, c uint64) uint64 { return uint64(sext(a, 16)*sext(b, 16)) + c },
	"v_mul_lo_u16":     func(_ *env, a, b, _ uint64) uint64 { return a * b },
	"v_mad_u16":        saturating(16, false, func(a, b, c int64) int64 { return a*b + c }),
	"v_mad_i16":        saturating(16, true, func(a, b, c int64) int64 { return a*b + c }),
	"v_add_nc_u32":     saturating(32, false, func(a, b, _ int64) int64 { return a + b }),
	"v_sub_nc_u32":     saturating(32, false, func(a, b, _ int64) int64 { return a - b }),
	"v_subrev_nc_u32":  saturating(32, false, func(a, b, _ int64) int64 { return b - a }),
	"v_add_nc_i32":     saturating(32, true, func(a, b, _ int64) int64 { return a + b }),
	"v_sub_nc_i32":     saturating(32, true, func(a, b, _ int64) int64 { return a - b }),
	"v_add_nc_u16":     saturating(16, false, func(a, b, _ int64) int64 { return a + b }),
	"v_sub_nc_u16":     saturating(16, false, func(a, b, _ int64) int64 { return a - b }),
	"v_add_nc_i16":     saturating(16, true, func(a, b, _ int64) int64 { return a + b }),
	"v_sub_nc_i16":     saturating(16, true, func(a, b, _ int64) int64 { return a - b }),

	"v_add3_u32":      func(_ *env, a, b, c uint64) uint64 { return a + b + c },
	"v_lshl_add_u32":  func(_ *env, a, b, c uint64) uint64 { return a<<(b&31) + c },
	"v_add_lshl_u32":  func(_ *env, a, b, c uint64) uint64 { return (a + b) << (c & 31) },
	"v_lshl_or_b32":   func(_ *env, a, b, c uint64) uint64 { return a<<(b&31) | c },
	"v_and_or_b32":    func(_ *env, a, b, c uint64) uint64 { return a&b | c },
	"v_or3_b32":       func(_ *env, a, b, c uint64) uint64 { return a | b | c },
	"v_xor3_b32":      func(_ *env, a, b, c uint64) uint64 { return a ^ b ^ c },
	"v_xad_u32":       func(_ *env, a, b, c uint64) uint64 { return (a ^ b) + c },
	"v_bfi_b32":       func(_ *env, a, b, c uint64) uint64 { return a&b | ^a&c },
	"v_bfm_b32":       func(_ *env, a, b, _ uint64) uint64 { return (1<<(a&31) - 1) << (b & 31) },
	"v_bfe_u32":       func(_ *env, a, b, c uint64) uint64 { return a & 0xffffffff >> (b & 31) & (1<<(c&31) - 1) },
	"v_bfe_i32":       func(_ *env, a, b, c uint64) uint64 { return bfeI32(a, b&31, c&31) },
	"v_alignbit_b32":  func(_ *env, a, b, c uint64) uint64 { return (a<<32 | b&0xffffffff) >> (c & 31) },
	"v_alignbyte_b32": func(_ *env, a, b, c uint64) uint64 { return (a<<32 | b&0xffffffff) >> (c & 3 * 8) },
	"v_perm_b32":      func(_ *env, a, b, c uint64) uint64 { return perm(a<<32|b&0xffffffff, c) },
	"v_bcnt_u32_b32":  func(_ *env, a, b, _ uint64) uint64 { return uint64(bits.OnesCount32(uint32(a))) + b },
	"v_mbcnt_lo_u32_b32": func(e *env, a, b, _ uint64) uint64 {
		return uint64(bits.OnesCount32(uint32(a)&uint32(uint64(1)<<e.lane-1))) + b
	},
	"v_mbcnt_hi_u32_b32": func(e *env, a, b, _ uint64) uint64 {
		return uint64(bits.OnesCount32(uint32(a)&uint32((uint64(1)<<e.lane-1)>>32))) + b
	},
	"v_sad_u8":      func(_ *env, a, b, c uint64) uint64 { return sad(a, b, 8, 4) + c },
	"v_sad_hi_u8":   func(_ *env, a, b, c uint64) uint64 { return sad(a, b, 8, 4)<<16 + c },
	"v_sad_u16":     func(_ *env, a, b, c uint64) uint64 { return sad(a, b, 16, 2) + c },
	"v_sad_u32":     func(_ *env, a, b, c uint64) uint64 { return sad(a, b, 32, 1) + c },
	"v_lerp_u8":     func(_ *env, a, b, c uint64) uint64 { return lerp(a, b, c) },
	"v_cndmask_b32": func(e *env, a, b, _ uint64) uint64 { return pick(e.flag, b, a) },
	"v_cndmask_b16": func(e *env, a, b, _ uint64) uint64 { return pick(e.flag, b, a) },

	"v_cvt_pk_u16_u32": func(_ *env, a, b, _ uint64) uint64 {
		return min(a&0xffffffff, 0xffff) | min(b&0xffffffff, 0xffff)<<16
	},
	"v_cvt_pk_i16_i32": func(_ *env, a, b, _ uint64) uint64 {
		return clamp(sext(a, 32), -1<<15, 1<<15-1)&0xffff | clamp(sext(b, 32), -1<<15, 1<<15-1)&0xffff<<16
	},
	"v_pack_b32_f16": func(_ *env, a, b, _ uint64) uint64 { return a&0xffff | b<<16 },

	"v_add_co_u32":       func(e *env, a, b, _ uint64) uint64 { return addCarry(e, a, b, 0) },
	"v_sub_co_u32":       func(e *env, a, b, _ uint64) uint64 { return subBorrow(e, a, b, 0) },
	"v_subrev_co_u32":    func(e *env, a, b, _ uint64) uint64 { return subBorrow(e, b, a, 0) },
	"v_add_co_ci_u32":    func(e *env, a, b, _ uint64) uint64 { return addCarry(e, a, b, e.flagBit()) },
	"v_sub_co_ci_u32":    func(e *env, a, b, _ uint64) uint64 { return subBorrow(e, a, b, e.flagBit()) },
	"v_subrev_co_ci_u32": func(e *env, a, b, _ uint64) uint64 { return subBorrow(e, b, a, e.flagBit()) },
	"v_mad_u64_u32": func(e *env, a, b, c uint64) uint64 {
		s, carry := bits.Add64(a&0xffffffff*(b&0xffffffff), c, 0)
		e.out = carry != 0
		return s
	},
	"v_mad_i64_i32": func(e *env, a, b, c uint64) uint64 {
		p := uint64(sext(a, 32) * sext(b, 32))
		s := p + c
		// The bit 64 of the sum of two numbers that are extended by their signs.
		_, carry := bits.Add64(p, c, 0)
		e.out = (p>>63+c>>63+carry)&1 != 0
		return s
	},
	"v_dot4_i32_iu8": func(e *env, a, b, c uint64) uint64 { return dot(e, a, b, c, 8, 4) },
	"v_dot8_i32_iu4": func(e *env, a, b, c uint64) uint64 { return dot(e, a, b, c, 4, 8) },
	"v_dot4_u32_u8":  func(_ *env, a, b, c uint64) uint64 { return dotU(a, b, 8, 4) + c },
	"v_dot8_u32_u4":  func(_ *env, a, b, c uint64) uint64 { return dotU(a, b, 4, 8) + c },
}

func init() {
	for _, t := range []struct {
		suffix string
		bits   int
		signed bool
	}{{"i32", 32, true}, {"u32", 32, false}, {"i16", 16, true}, {"u16", 16, false}} {
		less := func(a, b uint64) bool {
			if t.signed {
				return sext(a, t.bits) < sext(b, t.bits)
			}
			return a<<(64-t.bits) < b<<(64-t.bits)
		}
		lo := func(_ *env, a, b uint64) uint64 { return pick(less(a, b), a, b) }
		hi := func(_ *env, a, b uint64) uint64 { return pick(less(a, b), b, a) }
		orderings("_"+t.suffix, lo, hi)
	}
	for name, f := range map[string]string{
		"v_pk_mad_i16": "v_mad_i16", "v_pk_mad_u16": "v_mad_u16", "v_pk_mul_lo_u16": "v_mul_lo_u16",
		"v_pk_add_i16": "v_add_nc_i16", "v_pk_add_u16": "v_add_nc_u16", "v_pk_sub_i16": "v_sub_nc_i16",
		"v_pk_sub_u16": "v_sub_nc_u16", "v_pk_lshlrev_b16": "v_lshlrev_b16", "v_pk_lshrrev_b16": "v_lshrrev_b16",
		"v_pk_ashrrev_i16": "v_ashrrev_i16", "v_pk_max_i16": "v_max_i16", "v_pk_min_i16": "v_min_i16",
		"v_pk_max_u16": "v_max_u16", "v_pk_min_u16": "v_min_u16",
	} {
		packed[name] = lanes[f]
	}
}

// orderings adds the instructions that choose one of two or three numbers.
func orderings(suffix string, lo, hi func(e *env, a, b uint64) uint64) {
	lanes["v_min"+suffix] = func(e *env, a, b, _ uint64) uint64 { return lo(e, a, b) }
	lanes["v_max"+suffix] = func(e *env, a, b, _ uint64) uint64 { return hi(e, a, b) }
	lanes["v_min3"+suffix] = func(e *env, a, b, c uint64) uint64 { return lo(e, lo(e, a, b), c) }
	lanes["v_max3"+suffix] = func(e *env, a, b, c uint64) uint64 { return hi(e, hi(e, a, b), c) }
	lanes["v_minmax"+suffix] = func(e *env, a, b, c uint64) uint64 { return hi(e, lo(e, a, b), c) }
	lanes["v_maxmin"+suffix] = func(e *env, a, b, c uint64) uint64 { return lo(e, hi(e, a, b), c) }
	lanes["v_med3"+suffix] = func(e *env, a, b, c uint64) uint64 { return hi(e, lo(e, a, b), lo(e, hi(e, a, b), c)) }
}

func clz32(x uint32) uint64 {
	if x == 0 {
		return ^uint64(0)
	}
	return uint64(bits.LeadingZeros32(x))
}

func ctz32(x uint32) uint64 {
	if x == 0 {
		return ^uint64(0)
	}
	return uint64(bits.TrailingZeros32(x))
}

// cls32 counts the leading bits that are like the sign.
func cls32(x uint32) uint64 { return clz32(x ^ uint32(int32(x)>>31)) }

func clamp(x, lo, hi int64) uint64 { return uint64(max(lo, min(x, hi))) }

// saturating returns an operation on integers that stays in range where the instruction clamps.
func saturating(n int, signed bool, f func(a, b, c int64) int64) laneFunc {
	lo, hi := int64(0), int64(1)<<n-1
	if signed {
		lo, hi = -int64(1)<<(n-1), int64(1)<<(n-1)-1
	}
	mask := uint64(1)<<n - 1
	return func(e *env, a, b, c uint64) uint64 {
		if !e.inst.Clamp {
			return uint64(f(int64(a), int64(b), int64(c)))
		}
		if signed {
			return clamp(f(sext(a, n), sext(b, n), sext(c, n)), lo, hi)
		}
		return clamp(f(int64(a&mask), int64(b&mask), int64(c&mask)), lo, hi)
	}
}

func bfeI32(a, offset, width uint64) uint64 {
	if width == 0 {
		return 0
	}
	return uint64(sext(uint64(sext(a, 32)>>offset), int(width)))
}

// perm picks the bytes of data by the four selectors in sel.
func perm(data, sel uint64) (out uint64) {
	for i := range 4 {
		s := sel >> (8 * i) & 0xff
		var b uint64
		switch {
		case s >= 13:
			b = 0xff
		case s == 12:
		case s >= 8:
			b = -(data >> (16*(s-8) + 15) & 1) & 0xff
		default:
			b = data >> (8 * s) & 0xff
		}
		out |= b << (8 * i)
	}
	return out
}

// sad returns the sum of the absolute differences of count numbers of n bits.
func sad(a, b uint64, n, count int) (sum uint64) {
	for i := range count {
		x, y := a>>(n*i)&(1<<n-1), b>>(n*i)&(1<<n-1)
		sum += max(x, y) - min(x, y)
	}
	return sum
}

func lerp(a, b, c uint64) (out uint64) {
	for i := 0; i < 32; i += 8 {
		out |= (a>>i&0xff + b>>i&0xff + c>>i&1) >> 1 << i
	}
	return out
}

// dot adds the products of count numbers of n bits to c. The low negation bits say which side is signed.
func dot(e *env, a, b, c uint64, n, count int) uint64 {
	sum := sext(c, 32)
	for i := range count {
		x, y := int64(a>>(n*i)&(1<<n-1)), int64(b>>(n*i)&(1<<n-1))
		if e.inst.Neg&1 != 0 {
			x = sext(uint64(x), n)
		}
		if e.inst.Neg&2 != 0 {
			y = sext(uint64(y), n)
		}
		sum += x * y
	}
	if e.inst.Clamp {
		return clamp(sum, -1<<31, 1<<31-1)
	}
	return uint64(sum)
}

func dotU(a, b uint64, n, count int) (sum uint64) {
	for i := range count {
		sum += a >> (n * i) & (1<<n - 1) * (b >> (n * i) & (1<<n - 1))
	}
	return sum
}
