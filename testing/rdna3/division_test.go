package rdna3

import (
	"math"
	"math/rand/v2"
	"testing"
)

// divide computes a quotient in the steps in which compilers divide: LLVM's AMDGPU backend,
// LowerFDIV32 and LowerFDIV64 of SIISelLowering.cpp.
func (f family) divide(num, den uint64) uint64 {
	e := &env{w: &Wave{}, inst: &Inst{}}
	op := func(name string, a, b, c uint64) uint64 { return lanes["v_"+name+f.suffix](e, a, b, c) }
	sign := uint64(1) << (f.t.bits - 1)
	one := f.t.put(1, toNearest)
	d := op("div_scale", den, den, num)
	n := op("div_scale", num, den, num)
	e.flag = e.out
	r := op("rcp", d, 0, 0)
	for range 2 { // the card's reciprocal of 64 bits is not exact
		r = op("fma", op("fma", d^sign, r, one), r, r)
	}
	q := op("mul", n, r, 0)
	q = op("fma", op("fma", d^sign, q, n), r, q)
	return op("div_fixup", op("div_fmas", op("fma", d^sign, q, n), r, q), den, num)
}

// A division whose operands or quotient are near the ends of the range is right, too: the
// pseudo-code's powers of two are not, see testdata/vectors.py.
func TestDivision(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, f := range families[1:] {
		quotient := func(num, den uint64) (got, want uint64) {
			return f.divide(num, den), f.t.put(f.t.get(num)/f.t.get(den), toNearest)
		}
		check := func(num, den uint64) {
			t.Helper()
			got, want := quotient(num, den)
			if f.t.isNaN(got) && f.t.isNaN(want) {
				return
			}
			// A denormal quotient is rounded twice.
			if got != want && (!f.t.denormal(want) || math.Abs(float64(int64(got-want))) > 1) {
				t.Errorf("%s: %#x / %#x: got %#x, want %#x", f.suffix, num, den, got, want)
			}
		}
		power := func(n int) uint64 { return f.t.put(math.Ldexp(1, n), toNearest) }
		most := map[int]int{32: 127, 64: 1023}[f.t.bits]
		for _, n := range []int{1 - most, 0, 1, most} {
			for d := 1 - most; d <= most; d++ {
				check(power(n), power(d))
				check(power(d), power(n))
			}
		}
		for range 100_000 {
			check(rng.Uint64()>>(64-f.t.bits), rng.Uint64()>>(64-f.t.bits))
		}
	}
}
