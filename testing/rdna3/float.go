package rdna3

import "math"

// A rounding is how a result that has no exact number is rounded: the values of the MODE register.
type rounding uint8

const (
	toNearest rounding = iota // ties to even
	toPositive
	toNegative
	toZero
)

// A format16 is a floating-point format that is computed in float64 and rounded once.
type narrow struct {
	mantissa int // stored bits
	bias     int
	maxExp   int // of the largest finite number
}

var (
	half16fmt = narrow{10, 15, 15}
	bfloat    = narrow{7, 127, 127}
	single    = narrow{23, 127, 127}
)

// round returns the bits of x in a narrower format.
func (f narrow) round(x float64, mode rounding) uint64 {
	b := math.Float64bits(x)
	sign := b >> 63 << (f.width() - 1)
	inf := uint64(f.maxExp+f.bias+1) << f.mantissa
	switch {
	case math.IsNaN(x):
		return sign | inf | 1<<(f.mantissa-1) | b&(1<<52-1)>>(52-f.mantissa)
	case math.IsInf(x, 0):
		return sign | inf
	case x == 0:
		return sign
	}
	frac, exp := math.Frexp(math.Abs(x)) // frac in [0.5, 1)
	exp--
	drop := 52 - f.mantissa
	if least := 1 - f.bias; exp < least {
		drop += least - exp
	}
	m := uint64(math.Ldexp(frac, 53))
	if drop > 54 {
		drop = 54
		m = 1
	}
	kept, rest, halfway := m>>drop, m&(1<<drop-1), uint64(1)<<(drop-1)
	if mode.up(sign != 0, rest, halfway, kept) {
		kept++
	}
	// The exponent adds to the mantissa, whose leading bit counts as one of it.
	out := kept
	if exp >= 1-f.bias {
		out += uint64(exp+f.bias-1) << f.mantissa
	}
	if out >= inf {
		return sign | f.overflow(mode, sign != 0, inf)
	}
	return sign | out
}

// width returns the bits of a number.
func (f narrow) width() int {
	if f == single {
		return 32
	}
	return 16
}

// overflow returns infinity, or the largest number where the rounding does not go away from zero.
func (f narrow) overflow(mode rounding, negative bool, inf uint64) uint64 {
	if mode == toZero || mode == toPositive && negative || mode == toNegative && !negative {
		return inf - 1
	}
	return inf
}

// up reports whether the magnitude is rounded up.
func (r rounding) up(negative bool, rest, halfway, kept uint64) bool {
	switch r {
	case toPositive:
		return rest != 0 && !negative
	case toNegative:
		return rest != 0 && negative
	case toZero:
		return false
	}
	return rest > halfway || rest == halfway && kept&1 != 0
}

// widen returns the number with the bits b.
func (f narrow) widen(b uint64) float64 {
	if f == single {
		return float64(math.Float32frombits(uint32(b)))
	}
	if f == bfloat {
		return float64(math.Float32frombits(uint32(b) << 16))
	}
	sign, exp, frac := b>>15&1, int(b>>10&31), b&0x3ff
	var x float64
	switch exp {
	case 0:
		x = math.Ldexp(float64(frac), -24)
	case 31:
		return math.Float64frombits(sign<<63 | 0x7ff<<52 | frac<<42)
	default:
		x = math.Ldexp(float64(frac|0x400), exp-25)
	}
	if sign != 0 {
		return -x
	}
	return x
}

// sumOdd returns a+b rounded to odd, so that rounding it again to a narrower format is as good as rounding once.
func sumOdd(a, b float64) float64 {
	s := a + b
	if math.IsInf(s, 0) || math.IsNaN(s) {
		return s
	}
	bb := s - a
	err := (a - (s - bb)) + (b - bb)
	if err == 0 || math.Float64bits(s)&1 != 0 {
		return s
	}
	if (err > 0) == (s > 0) {
		return math.Float64frombits(math.Float64bits(s) + 1)
	}
	return math.Float64frombits(math.Float64bits(s) - 1)
}

// fmaOdd returns a*b+c for numbers of 32 bits or fewer, rounded to odd. The product is exact.
func fmaOdd(a, b, c float64) float64 { return sumOdd(a*b, c) }

// Float16 returns the number with the bits b in IEEE's half precision.
func Float16(b uint16) float64 { return f16(uint64(b)) }

func f32(b uint64) float32     { return math.Float32frombits(uint32(b)) }
func f64(b uint64) float64     { return math.Float64frombits(b) }
func f16(b uint64) float64     { return half16fmt.widen(b & 0xffff) }
func b32(x float32) uint64     { return uint64(math.Float32bits(x)) }
func b64(x float64) uint64     { return math.Float64bits(x) }
func toF16(x float64) uint64   { return half16fmt.round(x, toNearest) }
func isNaN32(b uint64) bool    { return b&0x7fffffff > 0x7f800000 }
func isNaN16(b uint64) bool    { return b&0x7fff > 0x7c00 }
func isNaN64(b uint64) bool    { return b&^(1<<63) > 0x7ff<<52 }
func denormal32(b uint64) bool { return b&0x7f800000 == 0 && b&0x7fffff != 0 }
func denormal16(b uint64) bool { return b&0x7c00 == 0 && b&0x3ff != 0 }
func denormal64(b uint64) bool { return b&(0x7ff<<52) == 0 && b&(1<<52-1) != 0 }

// A floatType has the arithmetic of one width for the lane functions.
type floatType struct {
	bits     int
	get      func(uint64) float64
	put      func(float64, rounding) uint64
	isNaN    func(uint64) bool
	denormal func(uint64) bool
	quiet    uint64 // the bit of a quiet NaN
}

var (
	type16 = floatType{16, f16, half16fmt.round, isNaN16, denormal16, 1 << 9}
	type32 = floatType{32, func(b uint64) float64 { return float64(f32(b)) }, single.round, isNaN32, denormal32, 1 << 22}
	type64 = floatType{64, f64, func(x float64, _ rounding) uint64 { return b64(x) }, isNaN64, denormal64, 1 << 51}
)

// sign returns the bit of the sign.
func (t *floatType) sign() uint64 { return 1 << (t.bits - 1) }

// less orders numbers that are not NaN, with -0 before +0.
func (t *floatType) less(a, b uint64) bool {
	x, y := t.get(a), t.get(b)
	return x < y || x == 0 && y == 0 && a&t.sign() != 0 && b&t.sign() == 0
}

// minimum returns the lesser number, or the other one if one is NaN. In IEEE mode a signalling NaN wins.
func (t *floatType) minimum(e *env, a, b uint64) uint64 {
	return t.choose(e, a, b, func() bool { return t.less(a, b) })
}

// maximum is like minimum for the greater number.
func (t *floatType) maximum(e *env, a, b uint64) uint64 {
	return t.choose(e, a, b, func() bool { return t.less(b, a) })
}

func (t *floatType) choose(e *env, a, b uint64, first func() bool) uint64 {
	ieee := e.w.mode.ieee
	switch {
	case ieee && t.signals(a):
		return t.quieted(a)
	case ieee && t.signals(b):
		return t.quieted(b)
	case t.isNaN(b):
		return a
	case t.isNaN(a):
		return b
	case first():
		return a
	}
	return b
}

// signals reports whether a is a signalling NaN.
func (t *floatType) signals(a uint64) bool { return t.isNaN(a) && a&t.quiet == 0 }

// quieted returns a, or the quiet form of a NaN.
func (t *floatType) quieted(a uint64) uint64 {
	if t.isNaN(a) {
		return a | t.quiet
	}
	return a
}
