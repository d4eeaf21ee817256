package rdna3

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
)

// snippet returns a wave of 32 lanes that has run instructions, given as words that LLVM's assembler wrote, to s_endpgm.
func snippet(t *testing.T, prepare func(w *Wave), words string) *Wave {
	t.Helper()
	w := newTestWave()
	w.group.lds = make([]byte, 1<<12)
	w.scratchSize = 64
	w.scratch = make([]byte, w.scratchSize*w.lanes)
	if prepare != nil {
		prepare(w)
	}
	const base = 0x1000
	p := NewProgram(base, append(parseWords(t, words), 0xbfb00000)) // s_endpgm
	w.pc = base
	w.group.d = &Dispatch{Kernel: &Kernel{Name: "snippet"}}
	if err := w.group.turn(t.Context(), p, w); err != nil {
		t.Fatal(err)
	}
	if !w.ended {
		t.Fatal("the snippet has not ended")
	}
	return w
}

// wantLanes compares a register with what f says for each lane.
func wantLanes(t *testing.T, w *Wave, r int, f func(lane int) uint32) {
	t.Helper()
	for l, got := range w.reg(VGPR0 + Reg(r)) {
		if want := f(l); got != want {
			t.Errorf("v%d of lane %d is %#x, and not %#x", r, l, got, want)
		}
	}
}

// numbered sets v1 to 100 and more.
func numbered(w *Wave) {
	for l := range w.reg(VGPR0 + 1) {
		w.reg(VGPR0)[l], w.reg(VGPR0 + 1)[l] = uint32(4*l), uint32(100+l)
	}
}

func TestDPP(t *testing.T) {
	for _, tc := range []struct {
		text, words string
		want        func(l int) uint32
	}{
		{"quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf", "7E0402FA FF00B101", func(l int) uint32 { return uint32(100 + (l ^ 1)) }},
		{"row_shr:1 row_mask:0xf bank_mask:0xf bound_ctrl:1", "7E0402FA FF091101", func(l int) uint32 {
			if l%16 == 0 {
				return 0
			}
			return uint32(99 + l)
		}},
		{"row_shl:1 row_mask:0xf bank_mask:0xf", "7E0402FA FF010101", func(l int) uint32 {
			if l%16 == 15 {
				return 7 // from before
			}
			return uint32(101 + l)
		}},
		{"row_ror:4 row_mask:0xf bank_mask:0xf", "7E0402FA FF012401", func(l int) uint32 { return uint32(100 + l&^15 + (l-4)&15) }},
		{"row_mirror row_mask:0xf bank_mask:0xf", "7E0402FA FF014001", func(l int) uint32 { return uint32(100 + l&^15 + 15 - l&15) }},
		{"row_half_mirror row_mask:0xf bank_mask:0xf", "7E0402FA FF014101", func(l int) uint32 { return uint32(100 + (l ^ 7)) }},
		{"row_share:3 row_mask:0xf bank_mask:0xf", "7E0402FA FF015301", func(l int) uint32 { return uint32(103 + l&^15) }},
		{"row_xmask:5 row_mask:0xf bank_mask:0xf", "7E0402FA FF016501", func(l int) uint32 { return uint32(100 + (l ^ 5)) }},
		{"row_shr:1 row_mask:0x2 bank_mask:0x1", "7E0402FA 21011101", func(l int) uint32 {
			if l > 16 && l < 20 {
				return uint32(99 + l)
			}
			return 7
		}},
		{"dpp8:[7,6,5,4,3,2,1,0]", "7E0402E9 05397701", func(l int) uint32 { return uint32(100 + l&^7 + 7 - l&7) }},
	} {
		t.Run(tc.text, func(t *testing.T) {
			if i, err := Decode(parseWords(t, tc.words)); err != nil || !strings.HasPrefix(i.String(), "v_mov_b32_dpp v2, v1 "+strings.Fields(tc.text)[0]) {
				t.Fatalf("the words are %v (%v)", i, err)
			}
			w := snippet(t, func(w *Wave) {
				numbered(w)
				for l := range w.reg(VGPR0 + 2) {
					w.reg(VGPR0 + 2)[l] = 7
				}
			}, tc.words)
			wantLanes(t, w, 2, tc.want)
		})
	}
}

// TestLaneMoves runs the instructions that move data between lanes.
func TestLaneMoves(t *testing.T) {
	selectors := func(w *Wave) {
		numbered(w)
		for l := range w.reg(VGPR0 + 3) {
			w.reg(VGPR0 + 3)[l] = uint32(4 * (31 - l))
		}
		w.s[2], w.s[3] = 0x76543210, 0xfedcba98
	}
	reversed := func(l int) uint32 { return uint32(131 - l) }
	for words, want := range map[string]func(l int) uint32{
		"DACC0000 02000103": reversed,                                             // ds_bpermute_b32 v2, v3, v1
		"DAC80000 02000103": reversed,                                             // ds_permute_b32 v2, v3, v1
		"D8D4401F 02000001": func(l int) uint32 { return uint32(100 + (l ^ 16)) }, // ds_swizzle_b32 v2, v1 offset:swizzle(SWAP,16)
		"D65C0802 000C0501": func(l int) uint32 { return uint32(100 + (l ^ 16)) }, // v_permlanex16_b32 v2, v1, s2, s3 op_sel:[1,0]
		"D65B0002 000C0501": func(l int) uint32 { return uint32(100 + l) },        // v_permlane16_b32 v2, v1, s2, s3
	} {
		wantLanes(t, snippet(t, selectors, words), 2, want)
	}
	// v_readlane_b32 s5, v1, 9; v_writelane_b32 v1, s5, 2; v_readfirstlane_b32 s6, v1
	w := snippet(t, numbered, "D7600005 00011301 D7610001 00010405 7E0C0501")
	if w.s[5] != 109 || w.s[6] != 100 || w.reg(VGPR0 + 1)[2] != 109 {
		t.Errorf("s5 %d, s6 %d, v1 %d", w.s[5], w.s[6], w.reg(VGPR0 + 1)[2])
	}
}

// TestMemoryInstructions runs loads, stores and atomics on LDS, scratch and global memory.
func TestMemoryInstructions(t *testing.T) {
	same := func(l int) uint32 { return uint32(100 + l) }
	// ds_store_b32 v0, v1 offset:16; ds_load_b32 v2, v0 offset:16; scratch_store_b32 off, v1, off offset:8;
	// scratch_load_b32 v3, off, off offset:8
	w := snippet(t, numbered, "D8340010 00000100 D8D80010 02000000 DC690008 007C0100 DC510008 037C0000")
	wantLanes(t, w, 2, same)
	wantLanes(t, w, 3, same)
	// ds_store_2addr_b32 v0, v1, v1 offset0:64 offset1:128; ds_load_2addr_b32 v[2:3], v0 offset0:64 offset1:128
	w = snippet(t, numbered, "D8388040 00010100 D8DC8040 02000000")
	wantLanes(t, w, 2, same)
	wantLanes(t, w, 3, same)
	// ds_load_u16_d16_hi v0, v0 offset:16 keeps the lower half.
	w = snippet(t, func(w *Wave) { numbered(w); store32(w.group.lds[16:], 0xabcd1234) }, "DA9C0010 00000000")
	if got := w.reg(VGPR0)[0]; got != 0x12340000 {
		t.Errorf("d16_hi gives %#x", got)
	}
	// ds_add_rtn_u32 v2, v4, v1; ds_load_b32 v3, v4: every lane adds to the same word.
	w = snippet(t, numbered, "D8800000 02000104 D8D80000 03000004")
	sum := uint32(0)
	wantLanes(t, w, 2, func(l int) uint32 { sum += uint32(100 + l); return sum - uint32(100+l) })
	wantLanes(t, w, 3, func(int) uint32 { return sum })
}

// TestGlobalMemory runs accesses by a scalar base and a vector offset.
func TestGlobalMemory(t *testing.T) {
	const base = 0x12_3456_7000
	data := make([]byte, 256)
	global := func(w *Wave) {
		numbered(w)
		for n := range data {
			data[n] = byte(n * 7)
		}
		w.group.mem = &Memory{}
		w.group.mem.Map(base, data)
		w.setS64(2, base)
		w.setS64(4, base) // a buffer of 256 bytes, checked as raw
		w.s[6], w.s[7] = 200, 3<<28
	}
	word := func(at int) uint32 { return binary.LittleEndian.Uint32(data[at:]) }
	// s_load_b64 s[8:9], s[2:3], 0x8; global_load_b64 v[2:3], v0, s[2:3] offset:4
	w := snippet(t, global, "F4040201 F8000008 DC560004 02020000")
	if w.s[8] != word(8) || w.s[9] != word(12) {
		t.Errorf("s_load_b64 gives %#x %#x", w.s[8], w.s[9])
	}
	wantLanes(t, w, 2, func(l int) uint32 { return word(4*l + 4) })
	wantLanes(t, w, 3, func(l int) uint32 { return word(4*l + 8) })
	// buffer_load_b32 v2, v0, s[4:7], 0 offen offset:88: zero beyond 200 bytes.
	w = snippet(t, global, "E0500058 80410200")
	wantLanes(t, w, 2, func(l int) uint32 {
		if 4*l+88+4 > 200 {
			return 0
		}
		return word(4*l + 88)
	})
	// buffer_load_b32 v2, v0, s[4:7], s8 offen: the scalar offset counts.
	w = snippet(t, func(w *Wave) { global(w); w.s[8] = 100 }, "E0500000 08410200")
	wantLanes(t, w, 2, func(l int) uint32 {
		if 4*l+100+4 > 200 {
			return 0
		}
		return word(4*l + 100)
	})
	// global_store_b16 v0, v1, s[2:3]; global_store_d16_hi_b16 v0, v1, s[2:3] offset:2
	snippet(t, func(w *Wave) { global(w); w.reg(VGPR0 + 1)[3] = 0x1234abcd }, "DC660000 00020100 DC960002 00020100")
	if word(12) != 0x1234abcd || word(16) != 104 {
		t.Errorf("stores give %#x %#x", word(12), word(16))
	}
	// global_atomic_add_u32 v2, v4, v1, s[2:3] glc
	before := uint32(0)
	w = snippet(t, func(w *Wave) { global(w); before = word(0) }, "DCD64000 02020104")
	wantLanes(t, w, 2, func(l int) uint32 { before += uint32(100 + l); return before - uint32(100+l) })
	if word(0) != before {
		t.Errorf("the sum is %#x, and not %#x", word(0), before)
	}
}

// TestMatrices multiplies matrices with the layout of registers that AMD documents: lane l has row l of A and column l
// of B, and element (2r + l/16, l%16) of the result in register r.
func TestMatrices(t *testing.T) {
	var a, b [16][16]int
	fill := func(w *Wave, bits int, encode func(x int) uint32) {
		for line := range 16 {
			for k := range 16 {
				a[line][k], b[line][k] = (line*5+k*3)%11-5, (line*7+k)%13-6
			}
		}
		per := 32 / bits
		mask := uint32(1)<<bits - 1
		for l := range 32 {
			for k := range 16 {
				w.reg(VGPR0 + Reg(8+k/per))[l] |= encode(a[l%16][k]) & mask << (bits * (k % per))
				w.reg(VGPR0 + Reg(16+k/per))[l] |= encode(b[l%16][k]) & mask << (bits * (k % per))
			}
		}
	}
	product := func(row, col int) (sum int) {
		for k := range 16 {
			sum += a[row][k] * b[col][k]
		}
		return sum
	}
	for _, tc := range []struct {
		name, words string
		bits        int
		in, out     func(x int) uint32
	}{
		{"f32 of f16", "CC404028 1C622108", 16, func(x int) uint32 { return uint32(toF16(float64(x))) }, func(x int) uint32 { return uint32(b32(float32(x))) }},
		{"f16", "CC424028 1C622108", 16, func(x int) uint32 { return uint32(toF16(float64(x))) }, func(x int) uint32 { return uint32(toF16(float64(x))) }},
		{"f32 of bf16", "CC414028 1C622108", 16, nearestBF16, func(x int) uint32 { return uint32(b32(float32(x))) }},
		{"bf16", "CC434028 1C622108", 16, nearestBF16, nearestBF16},
		{"i32 of i4", "CC454028 7C622108", 4, func(x int) uint32 { return uint32(int8(x)) }, func(x int) uint32 { return uint32(int32(x)) }},
		{"i32 of i8", "CC444028 7C622108", 8, func(x int) uint32 { return uint32(int8(x)) }, func(x int) uint32 { return uint32(int32(x)) }},
	} {
		w := snippet(t, func(w *Wave) { fill(w, tc.bits, tc.in) }, tc.words)
		for r := range 8 {
			wantLanes(t, w, 40+r, func(l int) uint32 { return tc.out(product(2*r+l/16, l%16)) })
		}
	}
}

// nearestBF16 returns the bfloat16 that is nearest to a number: half of a float32, rounded to even.
func nearestBF16(x int) uint32 {
	b := math.Float32bits(float32(x))
	return (b + 0x7fff + b>>16&1) >> 16
}

// TestDualReadsBeforeItWrites runs both halves of an instruction of which the second reads what the first writes.
func TestDualReadsBeforeItWrites(t *testing.T) {
	// v_dual_add_f32 v2, v1, v0 :: v_dual_mov_b32 v3, v2
	w := snippet(t, func(w *Wave) {
		for l := range 32 {
			w.reg(VGPR0)[l], w.reg(VGPR0 + 1)[l], w.reg(VGPR0 + 2)[l] = 0x3f800000, 0x40000000, 42
		}
	}, "C9100101 02020102")
	wantLanes(t, w, 2, func(int) uint32 { return 0x40400000 })
	wantLanes(t, w, 3, func(int) uint32 { return 42 })
}

// TestFaults checks what stops a dispatch: an unknown instruction, a trap, a wave that does not end, a jump outside.
func TestFaults(t *testing.T) {
	var unknown *UnknownError
	var trap *TrapError
	for _, tc := range []struct {
		name  string
		words []uint32
		is    func(error) bool
		text  string
	}{
		{"unknown", []uint32{0xbf800000, 0}, func(err error) bool { return errors.As(err, &unknown) }, "00000000"},
		{"trap", []uint32{0xbf900002}, func(err error) bool { return errors.As(err, &trap) }, "s_trap 2"},
		{"no end", []uint32{0xbfa0ffff}, func(err error) bool { return errors.Is(err, ErrLimit) }, "s_branch"},
		{"outside", []uint32{0xbfa00100}, func(err error) bool { return errors.Is(err, ErrOutside) }, "outside"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := &Kernel{Name: "some_kernel", Entry: 0x1000, Lanes: 32, vgprs: vgprs, program: NewProgram(0x1000, tc.words)}
			one := [3]uint32{1, 1, 1}
			_, err := new(Memory).Run(t.Context(), &Dispatch{Kernel: k, Group: one, Grid: one, Limit: 1 << 17})
			var fault *Fault
			if !errors.As(err, &fault) || fault.Kernel != "some_kernel" || !strings.Contains(err.Error(), tc.text) || !tc.is(err) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}
