package rdna3

import (
	"math"
	"math/bits"
	"unsafe"
)

// slices4 returns the lanes of the operands.
func slices4(d, a, b, c *uint32, n int) (sd, sa, sb, sc []uint32) {
	return unsafe.Slice(d, n), unsafe.Slice(a, n), unsafe.Slice(b, n), unsafe.Slice(c, n)
}

// eachFloat returns the form of a function of one float32.
func eachFloat(f func(x float64) float64) vecFunc {
	return func(d, a, _, _ *uint32, n int) {
		in, out := unsafe.Slice(a, n), unsafe.Slice(d, n)
		for l, x := range in {
			out[l] = math.Float32bits(float32(f(float64(math.Float32frombits(x)))))
		}
	}
}

// vecLdexpF32 multiplies by a power of two, which float64 has for every exponent that does not end at zero or infinity.
func vecLdexpF32(d, a, b, _ *uint32, n int) {
	out, in, by, _ := slices4(d, a, b, b, n)
	for l, x := range in {
		const most, bias = 600, 1023
		e := max(-most, min(int32(by[l]), most))
		scale := math.Float64frombits(uint64(e+bias) << 52)
		out[l] = math.Float32bits(float32(float64(math.Float32frombits(x)) * scale))
	}
}

func vecMbcntLo(d, a, b, _ *uint32, n int) {
	out, mask, add, _ := slices4(d, a, b, b, n)
	for l := range out {
		out[l] = uint32(bits.OnesCount32(mask[l]&uint32(uint64(1)<<l-1))) + add[l]
	}
}

// vecPermB32 picks bytes of a and b by the selectors in c.
func vecPermB32(d, a, b, c *uint32, n int) {
	out, high, low, sel := slices4(d, a, b, c, n)
	for l, s := range sel {
		data := uint64(high[l])<<32 | uint64(low[l])
		if s&0xf8f8f8f8 != 0 {
			out[l] = uint32(perm(data, uint64(s)))
			continue
		}
		out[l] = uint32(data>>(8*(s&7)))&0xff | uint32(data>>(8*(s>>8&7)))&0xff<<8 |
			uint32(data>>(8*(s>>16&7)))&0xff<<16 | uint32(data>>(8*(s>>24&7)))<<24
	}
}
