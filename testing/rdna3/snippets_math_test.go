package rdna3

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// runOne runs one instruction, of which text is the beginning, on registers that set fills.
func runOne(t *testing.T, text string, words []uint32, set func(w *Wave)) *Wave {
	t.Helper()
	i, err := Decode(words)
	if err != nil || !strings.HasPrefix(i.String(), text) {
		t.Fatalf("the words are %v (%v), and not %s", i, err, text)
	}
	return snippet(t, set, strings.Trim(fmt.Sprintf("%x", words), "[]"))
}

// fill sets a register of all lanes.
func fill(w *Wave, r int, x uint32) {
	for l := range w.reg(VGPR0 + Reg(r)) {
		w.reg(VGPR0 + Reg(r))[l] = x
	}
}

// TestMultiplyAddWithLiteral runs the multiply-adds that have a literal as factor or summand.
func TestMultiplyAddWithLiteral(t *testing.T) {
	const a, b, k = 3.0, 0.5, -1.25
	for name, want := range map[string]float64{
		"v_fmaak_f32": a*b + k, "v_fmamk_f32": a*k + b, "v_fmaak_f16": a*b + k, "v_fmamk_f16": a*k + b,
	} {
		bits := func(x float64) uint32 {
			if strings.HasSuffix(name, "16") {
				return uint32(toF16(x))
			}
			return math.Float32bits(float32(x))
		}
		words := []uint32{uint32(opNamed(t, name).Code)<<25 | 4<<17 | 2<<9 | 257, bits(k)}
		w := runOne(t, name, words, func(w *Wave) { fill(w, 1, bits(a)); fill(w, 2, bits(b)) })
		wantLanes(t, w, 4, func(int) uint32 { return bits(want) })
	}
}

// TestBytesAndOffsets runs what works on bytes and on numbers of four bits.
func TestBytesAndOffsets(t *testing.T) {
	vop1 := func(name string) []uint32 {
		return []uint32{0b0111111<<25 | 4<<17 | uint32(opNamed(t, name).Code)<<9 | 257}
	}
	// v_cvt_off_f32_i4: sixteenths of a signed number of four bits.
	for x, want := range map[uint32]float32{0: 0, 1: 0.0625, 7: 0.4375, 8: -0.5, 15: -0.0625, 0xf3: 0.1875} {
		w := runOne(t, "v_cvt_off_f32_i4", vop1("v_cvt_off_f32_i4"), func(w *Wave) { fill(w, 1, x) })
		wantLanes(t, w, 4, func(int) uint32 { return math.Float32bits(want) })
	}
	// v_sat_pk_u8_i16: two numbers of 16 bits as bytes; the upper half of the destination stays.
	for x, want := range map[uint32]uint32{0x00100020: 0x1020, 0x8000_0100: 0x00ff, 0x7fff_ffff: 0xff00, 0x00ff_0000: 0xff00} {
		w := runOne(t, "v_sat_pk_u8_i16", vop1("v_sat_pk_u8_i16"), func(w *Wave) { fill(w, 1, x); fill(w, 4, 0xabcd0000) })
		wantLanes(t, w, 4, func(int) uint32 { return 0xabcd0000 | want })
	}
	// v_sad_hi_u8: the sum of the differences of four bytes, 65536 times.
	words := []uint32{0b110101<<26 | uint32(opNamed(t, "v_sad_hi_u8").Code)<<16 | 4, 257 | 258<<9 | 259<<18}
	w := runOne(t, "v_sad_hi_u8", words, func(w *Wave) { fill(w, 1, 0x01ff0a00); fill(w, 2, 0x0300050a); fill(w, 3, 7) })
	wantLanes(t, w, 4, func(int) uint32 { return (2+255+5+10)<<16 + 7 })
}

// TestFmaMix runs the multiply-adds whose sources are each a float32 or a half of a register, with signs.
func TestFmaMix(t *testing.T) {
	const low, high, f, c = 1.5, -0.75, 3.0, 0.25
	pair := uint32(toF16(low)) | uint32(toF16(high))<<16
	for _, tc := range []struct {
		name                 string
		sel, selHi, neg, abs uint32
		want                 float64
	}{
		{"v_fma_mix_f32", 0, 0b001, 0, 0, low*f + c},
		{"v_fma_mix_f32", 0b001, 0b001, 0, 0, high*f + c},
		{"v_fma_mix_f32", 0b001, 0b001, 0b001, 0, -high*f + c},
		{"v_fma_mix_f32", 0b001, 0b001, 0, 0b001, -high*f + c},
		{"v_fma_mix_f32", 0, 0b001, 0b100, 0, low*f - c},
		{"v_fma_mixlo_f16", 0, 0b001, 0, 0, low*f + c},
		{"v_fma_mixhi_f16", 0b001, 0b001, 0, 0, high*f + c},
	} {
		words := []uint32{
			0b11001100<<24 | uint32(opNamed(t, tc.name).Code)<<16 | tc.selHi>>2<<14 | tc.sel<<11 | tc.abs<<8 | 4,
			257 | 258<<9 | 259<<18 | tc.selHi&3<<27 | tc.neg<<29,
		}
		w := runOne(t, tc.name, words, func(w *Wave) {
			fill(w, 1, pair)
			fill(w, 2, math.Float32bits(f))
			fill(w, 3, math.Float32bits(c))
			fill(w, 4, 0x12345678)
		})
		wantLanes(t, w, 4, func(int) uint32 {
			switch half := uint32(toF16(tc.want)); tc.name {
			case "v_fma_mixlo_f16":
				return 0x12340000 | half
			case "v_fma_mixhi_f16":
				return half<<16 | 0x5678
			}
			return math.Float32bits(float32(tc.want))
		})
	}
}

// TestFlatAddresses stores and loads through one kind of address in global memory, LDS and scratch.
func TestFlatAddresses(t *testing.T) {
	const base = 0x12_3456_7000
	data := make([]byte, 256)
	for name, from := range map[string]uint64{"global": base, "LDS": SharedAperture + 64, "scratch": PrivateAperture + 16} {
		step := uint64(4)
		if name == "scratch" {
			step = 0 // each lane has its own
		}
		// flat_store_b32 v[2:3], v1; flat_load_b32 v6, v[2:3]
		w := snippet(t, func(w *Wave) {
			numbered(w)
			w.group.mem = &Memory{}
			w.group.mem.Map(base, data)
			for l := range w.lanes {
				w.setNumber(VGPR0+2, l, 8, from+step*uint64(l))
			}
		}, "DC680000 007C0102 DC500000 067C0002")
		wantLanes(t, w, 6, func(l int) uint32 { return uint32(100 + l) })
		for l := range 32 {
			var at []byte
			switch name {
			case "global":
				at = data[4*l:]
			case "LDS":
				at = w.group.lds[64+4*l:]
			default:
				at = w.scratch[l*w.scratchSize+16:]
			}
			if got := load32(at); got != uint32(100+l) {
				t.Errorf("%s has %d for lane %d", name, got, l)
			}
		}
	}
}
