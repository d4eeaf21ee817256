package rdna3

import "math"

// toInt returns x without its fraction, within the range of the type; NaN is zero.
func toInt(x float64, lo, hi int64) uint64 {
	switch {
	case math.IsNaN(x):
		return 0
	case x <= float64(lo):
		return uint64(lo)
	case x >= float64(hi):
		return uint64(hi)
	}
	return uint64(int64(x))
}

func toI32(x float64) uint64 { return toInt(x, math.MinInt32, math.MaxInt32) }
func toU32(x float64) uint64 { return toInt(x, 0, math.MaxUint32) }
func toI16(x float64) uint64 { return toInt(x, math.MinInt16, math.MaxInt16) }
func toU16(x float64) uint64 { return toInt(x, 0, math.MaxUint16) }

// norm returns x times scale to the nearest integer, within the range that scale is the end of.
func norm(x, lo, scale float64) uint64 {
	return toInt(math.RoundToEven(max(lo, min(x, 1))*scale), int64(lo*scale), int64(scale))
}

// conversions adds the conversions of one number.
func conversions() {
	from32 := func(name string, op func(float64) uint64) {
		lanes[name] = func(_ *env, a, _, _ uint64) uint64 { return op(type32.get(a)) }
	}
	from32("v_cvt_i32_f32", toI32)
	from32("v_cvt_u32_f32", toU32)
	from32("v_cvt_nearest_i32_f32", func(x float64) uint64 { return toI32(math.Floor(x + 0.5)) })
	from32("v_cvt_floor_i32_f32", func(x float64) uint64 { return toI32(math.Floor(x)) })
	from32("v_cvt_f64_f32", b64)
	from64 := func(name string, op func(float64) uint64) {
		lanes[name] = func(_ *env, a, _, _ uint64) uint64 { return op(f64(a)) }
	}
	from64("v_cvt_i32_f64", toI32)
	from64("v_cvt_u32_f64", toU32)
	from16 := func(name string, op func(float64) uint64) {
		lanes[name] = func(_ *env, a, _, _ uint64) uint64 { return op(f16(a)) }
	}
	from16("v_cvt_i16_f16", toI16)
	from16("v_cvt_u16_f16", toU16)
	from16("v_cvt_f32_f16", func(x float64) uint64 { return single.round(x, toNearest) })
	from16("v_cvt_norm_i16_f16", func(x float64) uint64 { return norm(x, -1, math.MaxInt16) })
	from16("v_cvt_norm_u16_f16", func(x float64) uint64 { return norm(x, 0, math.MaxUint16) })

	to := func(name string, t *floatType, op func(a uint64) float64) {
		lanes[name] = func(e *env, a, _, _ uint64) uint64 { return t.put(op(a), e.rounding(t.bits)) }
	}
	signed := func(n int) func(uint64) float64 { return func(a uint64) float64 { return float64(sext(a, n)) } }
	unsigned := func(shift, n int) func(uint64) float64 {
		return func(a uint64) float64 { return float64(a >> shift & (1<<n - 1)) }
	}
	to("v_cvt_f32_i32", &type32, signed(32))
	to("v_cvt_f64_i32", &type64, signed(32))
	to("v_cvt_f16_i16", &type16, signed(16))
	to("v_cvt_f32_u32", &type32, unsigned(0, 32))
	to("v_cvt_f64_u32", &type64, unsigned(0, 32))
	to("v_cvt_f16_u16", &type16, unsigned(0, 16))
	to("v_cvt_f32_ubyte0", &type32, unsigned(0, 8))
	to("v_cvt_f32_ubyte1", &type32, unsigned(8, 8))
	to("v_cvt_f32_ubyte2", &type32, unsigned(16, 8))
	to("v_cvt_f32_ubyte3", &type32, unsigned(24, 8))
	to("v_cvt_f32_f64", &type32, f64)
	to("v_cvt_f16_f32", &type16, type32.get)
	to("v_cvt_off_f32_i4", &type32, func(a uint64) float64 { return float64(sext(a, 4)) / 16 })
}

// packedConversions adds the conversions of two numbers to one register.
func packedConversions() {
	pair := func(name string, op func(a uint64) uint64) {
		lanes[name] = func(_ *env, a, b, _ uint64) uint64 { return op(a)&0xffff | op(b)&0xffff<<16 }
	}
	pair("v_cvt_pk_rtz_f16_f32", func(a uint64) uint64 { return half16fmt.round(type32.get(a), toZero) })
	pair("v_cvt_pk_i16_f32", func(a uint64) uint64 { return toI16(type32.get(a)) })
	pair("v_cvt_pk_u16_f32", func(a uint64) uint64 { return toU16(type32.get(a)) })
	pair("v_cvt_pk_norm_i16_f32", func(a uint64) uint64 { return norm(type32.get(a), -1, math.MaxInt16) })
	pair("v_cvt_pk_norm_u16_f32", func(a uint64) uint64 { return norm(type32.get(a), 0, math.MaxUint16) })
	pair("v_cvt_pk_norm_i16_f16", func(a uint64) uint64 { return norm(f16(a), -1, math.MaxInt16) })
	pair("v_cvt_pk_norm_u16_f16", func(a uint64) uint64 { return norm(f16(a), 0, math.MaxUint16) })
	lanes["v_cvt_pk_u8_f32"] = func(_ *env, a, b, c uint64) uint64 {
		shift := b & 3 * 8
		return c&^(0xff<<shift) | toInt(type32.get(a), 0, math.MaxUint8)<<shift
	}
}
