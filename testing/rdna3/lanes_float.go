package rdna3

import (
	"math"
	"strings"
)

// family is a floating-point type with the suffix of its instructions.
type family struct {
	suffix string
	t      *floatType
}

var families = []family{{"_f16", &type16}, {"_f32", &type32}, {"_f64", &type64}}

// rounding returns the mode for results of n bits.
func (e *env) rounding(n int) rounding {
	if n == 32 {
		return e.w.mode.round32
	}
	return e.w.mode.round64
}

// add returns a+b as a number of the type.
func (t *floatType) add(e *env, a, b float64) uint64 {
	if t.bits == 64 {
		return b64(directed(a+b, func() float64 { return twoSum(a, b) }, e.rounding(64)))
	}
	return t.put(sumOdd(a, b), e.rounding(t.bits))
}

func (t *floatType) mul(e *env, a, b float64) uint64 {
	if t.bits == 64 {
		p := a * b
		return b64(directed(p, func() float64 { return math.FMA(a, b, -p) }, e.rounding(64)))
	}
	return t.put(a*b, e.rounding(t.bits))
}

func (t *floatType) fma(e *env, a, b, c float64) uint64 {
	if t.bits == 64 {
		return b64(math.FMA(a, b, c))
	}
	return t.put(fmaOdd(a, b, c), e.rounding(t.bits))
}

// twoSum returns what a+b loses by rounding.
func twoSum(a, b float64) float64 {
	s := a + b
	bb := s - a
	return (a - (s - bb)) + (b - bb)
}

// directed corrects a result that was rounded to nearest, of which err is missing.
func directed(x float64, err func() float64, r rounding) float64 {
	if r == toNearest || math.IsInf(x, 0) || math.IsNaN(x) {
		return x
	}
	e := err()
	up := e > 0 && (r == toPositive || r == toZero && x < 0)
	down := e < 0 && (r == toNegative || r == toZero && x > 0)
	switch {
	case up:
		return math.Nextafter(x, math.Inf(1))
	case down:
		return math.Nextafter(x, math.Inf(-1))
	}
	return x
}

func init() {
	for _, f := range families {
		f.arithmetic()
		f.unary()
		orderings(f.suffix, f.t.minimum, f.t.maximum)
		f.medians()
		f.scaling()
	}
	mixed()
	conversions()
	packedConversions()
}

// arithmetic adds the operations with two and three numbers.
func (f family) arithmetic() {
	t := f.t
	set := func(name string, op func(e *env, a, b, c float64) uint64) {
		lanes["v_"+name+f.suffix] = func(e *env, a, b, c uint64) uint64 { return op(e, t.get(a), t.get(b), t.get(c)) }
	}
	set("add", func(e *env, a, b, _ float64) uint64 { return t.add(e, a, b) })
	set("sub", func(e *env, a, b, _ float64) uint64 { return t.add(e, a, -b) })
	set("subrev", func(e *env, a, b, _ float64) uint64 { return t.add(e, b, -a) })
	set("mul", func(e *env, a, b, _ float64) uint64 { return t.mul(e, a, b) })
	set("fma", func(e *env, a, b, c float64) uint64 { return t.fma(e, a, b, c) })
	set("fmac", func(e *env, a, b, _ float64) uint64 { return t.fma(e, a, b, t.get(e.old)) })
	set("fmaak", func(e *env, a, b, _ float64) uint64 { return t.fma(e, a, b, t.get(uint64(e.inst.Literal))) })
	set("fmamk", func(e *env, a, b, _ float64) uint64 { return t.fma(e, a, t.get(uint64(e.inst.Literal)), b) })
	lanes["v_div_fmas"+f.suffix] = func(e *env, a, b, c uint64) uint64 {
		r := t.fma(e, t.get(a), t.get(b), t.get(c))
		if !e.flag {
			return r
		}
		n := t.divScaling()
		if t.get(c) < 1 && t.get(c) > -1 {
			n = -n // v_div_scale has made a tiny quotient larger, and a huge one smaller
		}
		return t.put(math.Ldexp(t.get(r), n), e.rounding(t.bits))
	}
	lanes["v_div_fixup"+f.suffix] = func(_ *env, a, b, c uint64) uint64 { return t.divFixup(a, b, c) }
}

// unary adds the operations with one number.
func (f family) unary() {
	t := f.t
	set := func(name string, op func(x float64) float64) {
		lanes["v_"+name+f.suffix] = func(e *env, a, _, _ uint64) uint64 {
			if t.isNaN(a) {
				return a | t.quiet
			}
			return t.put(op(t.get(a)), e.rounding(t.bits))
		}
	}
	set("trunc", math.Trunc)
	set("ceil", math.Ceil)
	set("floor", math.Floor)
	set("rndne", math.RoundToEven)
	set("fract", func(x float64) float64 { return min(x-math.Floor(x), t.belowOne()) })
	set("rcp", func(x float64) float64 { return 1 / x })
	set("rcp_iflag", func(x float64) float64 { return 1 / x })
	set("rsq", func(x float64) float64 { return 1 / math.Sqrt(x) })
	set("sqrt", math.Sqrt)
	set("exp", math.Exp2)
	set("log", math.Log2)
	set("sin", func(x float64) float64 { return math.Sin(2 * math.Pi * math.Mod(x, 1)) })
	set("cos", func(x float64) float64 { return math.Cos(2 * math.Pi * math.Mod(x, 1)) })
	set("frexp_mant", func(x float64) float64 { m, _ := frexp(x); return m })
	exponent := func(_ *env, a, _, _ uint64) uint64 { _, n := frexp(t.get(a)); return uint64(n) }
	switch t.bits {
	case 16:
		lanes["v_frexp_exp_i16_f16"] = exponent
	default:
		lanes["v_frexp_exp_i32"+f.suffix] = exponent
	}
}

// belowOne returns the largest number below one.
func (t *floatType) belowOne() float64 {
	if t.bits == 64 {
		return math.Nextafter(1, 0)
	}
	return 1 - math.Ldexp(1, map[int]int{16: -11, 32: -24}[t.bits])
}

// frexp is math.Frexp with exponent zero for what is not finite.
func frexp(x float64) (float64, int) {
	if math.IsInf(x, 0) || math.IsNaN(x) {
		return x, 0
	}
	return math.Frexp(x)
}

// medians adds med3, which returns the least number if any operand is NaN.
func (f family) medians() {
	t := f.t
	median, least := lanes["v_med3"+f.suffix], lanes["v_min3"+f.suffix]
	lanes["v_med3"+f.suffix] = func(e *env, a, b, c uint64) uint64 {
		if t.isNaN(a) || t.isNaN(b) || t.isNaN(c) {
			return least(e, a, b, c)
		}
		return median(e, a, b, c)
	}
}

// scaling adds the operations with powers of two.
func (f family) scaling() {
	t := f.t
	n := 32
	if t.bits == 16 {
		n = 16
	}
	lanes["v_ldexp"+f.suffix] = func(e *env, a, b, _ uint64) uint64 {
		if t.isNaN(a) {
			return a | t.quiet
		}
		x, by := t.get(a), max(-5000, min(sext(b, n), 5000))
		return t.put(math.Ldexp(x, int(by)), e.rounding(t.bits))
	}
}

func mixed() {
	zeroMul := func(a, b float32) bool { return a == 0 || b == 0 }
	lanes["v_mul_dx9_zero_f32"] = func(e *env, a, b, _ uint64) uint64 {
		if zeroMul(f32(a), f32(b)) {
			return 0
		}
		return type32.mul(e, type32.get(a), type32.get(b))
	}
	dx9 := func(e *env, a, b, c uint64) uint64 {
		if zeroMul(f32(a), f32(b)) {
			return c
		}
		return type32.fma(e, type32.get(a), type32.get(b), type32.get(c))
	}
	lanes["v_fma_dx9_zero_f32"] = dx9
	lanes["v_fmac_dx9_zero_f32"] = func(e *env, a, b, _ uint64) uint64 { return dx9(e, a, b, e.old) }
	dot2 := func(get func(uint64) float64, put func(float64, rounding) uint64, sum func(uint64) float64) laneFunc {
		return func(e *env, a, b, c uint64) uint64 {
			s := put(sumOdd(sum(c), get(a&0xffff)*get(b&0xffff)), e.w.mode.round32)
			return put(sumOdd(sum(s), get(a>>16&0xffff)*get(b>>16&0xffff)), e.w.mode.round32)
		}
	}
	lanes["v_dot2_f32_f16"] = dot2(f16, single.round, single.widen)
	lanes["v_dot2_f32_bf16"] = dot2(bfloat.widen, single.round, single.widen)
	// The narrow forms round each product and each sum.
	narrowDot := func(f narrow) laneFunc {
		return func(_ *env, a, b, c uint64) uint64 {
			s := f.widen(c & 0xffff)
			for _, shift := range []int{0, 16} {
				p := f.widen(f.round(f.widen(a>>shift&0xffff)*f.widen(b>>shift&0xffff), toNearest))
				s = f.widen(f.round(sumOdd(s, p), toNearest))
			}
			return f.round(s, toNearest)
		}
	}
	lanes["v_dot2_f16_f16"] = narrowDot(half16fmt)
	lanes["v_dot2_bf16_bf16"] = narrowDot(bfloat)
	acc := lanes["v_dot2_f32_f16"]
	lanes["v_dot2acc_f32_f16"] = func(e *env, a, b, _ uint64) uint64 { return acc(e, a, b, e.old) }
	accBF := lanes["v_dot2_f32_bf16"]
	lanes["v_dot2acc_f32_bf16"] = func(e *env, a, b, _ uint64) uint64 { return accBF(e, a, b, e.old) }
	for _, name := range []string{"add", "mul", "min", "max", "fma"} {
		packed["v_pk_"+name+"_f16"] = lanes["v_"+name+"_f16"]
	}
	packed["v_pk_fmac_f16"] = lanes["v_fmac_f16"]
}

// packed has the operations of instructions that work on both halves of a register.
var packed = map[string]laneFunc{}

// A comparison has the sixteen conditions that a comparison of floating-point numbers may have.
var conditions = map[string]func(less, equal, greater bool) bool{
	"f": func(_, _, _ bool) bool { return false }, "lt": func(l, _, _ bool) bool { return l },
	"eq": func(_, e, _ bool) bool { return e }, "le": func(l, e, _ bool) bool { return l || e },
	"gt": func(_, _, g bool) bool { return g }, "lg": func(l, _, g bool) bool { return l || g },
	"ne": func(l, _, g bool) bool { return l || g },
	"ge": func(_, e, g bool) bool { return g || e }, "o": func(l, e, g bool) bool { return l || e || g },
	"u": func(l, e, g bool) bool { return !l && !e && !g }, "nge": func(_, e, g bool) bool { return !g && !e },
	"nlg": func(l, _, g bool) bool { return !l && !g }, "ngt": func(_, _, g bool) bool { return !g },
	"nle": func(l, e, _ bool) bool { return !l && !e }, "neq": func(_, e, _ bool) bool { return !e },
	"nlt": func(l, _, _ bool) bool { return !l }, "t": func(_, _, _ bool) bool { return true },
}

// compare returns the comparison that an instruction is, by its name: v_cmp_lt_f32, s_cmp_eq_i32.
func compare(name string) func(a, b uint64) bool {
	parts := strings.Split(name, "_")
	if len(parts) != 4 || !strings.HasPrefix(parts[1], "cmp") {
		return nil
	}
	if parts[2] == "class" {
		return classOf[parts[3]]
	}
	test, order := conditions[parts[2]], orders[parts[3]]
	if test == nil || order == nil {
		return nil
	}
	return func(a, b uint64) bool {
		l, g, nan := order(a, b)
		return test(l, !nan && !l && !g, g)
	}
}

// orders has the order of the numbers of each type: less, greater, and whether there is none.
var orders = map[string]func(a, b uint64) (less, greater, nan bool){}

// classOf has the test of a number against a mask of classes, by type.
var classOf = map[string]func(a, b uint64) bool{}

func init() {
	for _, f := range families {
		t := f.t
		orders[f.suffix[1:]] = func(a, b uint64) (bool, bool, bool) {
			x, y := t.get(a), t.get(b)
			return x < y, x > y, t.isNaN(a) || t.isNaN(b)
		}
		classOf[f.suffix[1:]] = func(a, b uint64) bool { return b>>t.class(a)&1 != 0 }
	}
	for n, bits := range map[string]int{"16": 16, "32": 32, "64": 64} {
		orders["i"+n] = func(a, b uint64) (bool, bool, bool) {
			x, y := sext(a, bits), sext(b, bits)
			return x < y, x > y, false
		}
		orders["u"+n] = func(a, b uint64) (bool, bool, bool) {
			x, y := a<<(64-bits), b<<(64-bits)
			return x < y, x > y, false
		}
	}
}

// class returns the bit of the class of a number in the mask of v_cmp_class.
func (t *floatType) class(a uint64) int {
	negative := a&t.sign() != 0
	side := func(minus, plus int) int {
		if negative {
			return minus
		}
		return plus
	}
	switch x := t.get(a); {
	case t.isNaN(a) && a&t.quiet == 0:
		return 0
	case t.isNaN(a):
		return 1
	case math.IsInf(x, 0):
		return side(2, 9)
	case x == 0:
		return side(5, 6)
	case t.denormal(a):
		return side(4, 7)
	}
	return side(3, 8)
}

// divFixup returns the quotient b divides c into, of which a is the computed magnitude.
func (t *floatType) divFixup(a, b, c uint64) uint64 {
	sign := (b ^ c) & t.sign()
	x, y := t.get(b), t.get(c)
	infinity := t.infinity()
	switch {
	case t.isNaN(c):
		return c | t.quiet
	case t.isNaN(b):
		return b | t.quiet
	case x == 0 && y == 0, math.IsInf(x, 0) && math.IsInf(y, 0):
		return t.sign() | infinity | t.quiet
	case x == 0, math.IsInf(y, 0):
		return sign | infinity
	case math.IsInf(x, 0), y == 0:
		return sign
	case t.bits == 16:
	case t.exponent(c)-t.exponent(b) < t.underflow():
		return sign
	case t.exponent(a) == t.exponent(infinity):
		return sign | infinity // the steps end with a NaN where the quotient is too large
	}
	return sign | a&^t.sign()
}

// infinity returns the bits of +Inf.
func (t *floatType) infinity() uint64 {
	return map[int]uint64{16: 0x1f << 10, 32: 0xff << 23, 64: 0x7ff << 52}[t.bits]
}

// exponent returns the field of the exponent.
func (t *floatType) exponent(a uint64) int {
	return int(a & t.infinity() >> map[int]int{16: 10, 32: 23, 64: 52}[t.bits])
}

// underflow returns the difference of exponents below which a quotient is zero.
func (t *floatType) underflow() int { return map[int]int{32: -150, 64: -1075}[t.bits] }

// divScaling returns the power of two by which v_div_scale scales, and v_div_fmas scales back.
func (t *floatType) divScaling() int { return 2 * t.bits }

// divScale returns the numerator or denominator of a division, scaled so that the steps of the division neither
// overflow nor lose bits. The carry tells v_div_fmas that the quotient has to be scaled back.
func (t *floatType) divScale(e *env, a, b, c uint64) uint64 {
	den, num := t.get(b), t.get(c)
	by := t.divScaling()
	scaled := func(n int) uint64 { return t.put(math.Ldexp(t.get(a), n), toNearest) }
	tiny := func(x float64) bool { return x != 0 && t.denormal(t.put(x, toNearest)) }
	equal := func(x, y uint64) bool { return t.get(x) == t.get(y) }
	e.out = false
	switch {
	case num == 0 || den == 0:
		return t.infinity() | t.quiet
	case t.exponent(c)-t.exponent(b) >= map[int]int{32: 96, 64: 768}[t.bits]:
		e.out = true
		return pick(equal(a, b), scaled(by), a)
	case t.denormal(b):
		return scaled(by)
	case tiny(1/den) && tiny(num/den):
		e.out = true
		return pick(equal(a, b), scaled(-by), a)
	case tiny(1 / den):
		return scaled(-by)
	case tiny(num / den):
		e.out = true
		return pick(equal(a, c), scaled(by), a)
	case t.exponent(c) <= map[int]int{32: 23, 64: 53}[t.bits]:
		return scaled(by)
	}
	return a
}

func init() {
	for _, f := range families[1:] {
		lanes["v_div_scale"+f.suffix] = f.t.divScale
	}
}
