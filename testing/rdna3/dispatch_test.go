package rdna3

import "testing"

// exchange stores each work item's number in LDS, waits at a barrier, reads the number of the item 32 further on and
// writes it to the place of the item in memory. It is what LLVM's assembler wrote for
//
//	v_lshlrev_b32 v1, 2, v0; ds_store_b32 v1, v0; s_waitcnt lgkmcnt(0); s_barrier; v_xor_b32 v2, 0x80, v1
//	ds_load_b32 v3, v2; s_waitcnt lgkmcnt(0); s_lshl_b32 s2, s2, 8; v_add_nc_u32 v1, s2, v1
//	global_store_b32 v1, v3, s[0:1]; s_endpgm
const exchange = "30020082 D8340000 00000001 BF89FC07 BFBD0000 3A0402FF 00000080 D8D80000 03000002 BF89FC07 84028802 4A020202 DC6A0000 00000301 BFB00000"

// TestDispatch runs groups of 64 items, as two waves of 32 lanes that need the barrier and as one wave of 64.
func TestDispatch(t *testing.T) {
	for _, lanes := range []int{32, 64} {
		const base, groups = 0x7000_0000, 9
		out := make([]byte, groups*256)
		m := &Memory{}
		m.Map(base, out)
		k := &Kernel{
			Name: "exchange", Entry: 0x1000, Lanes: lanes, vgprs: vgprs, LDS: 256, user: []int{userKernarg}, userCount: 2,
			groupIDs: [3]bool{true}, program: NewProgram(0x1000, parseWords(t, exchange)),
		}
		d := &Dispatch{Kernel: k, Group: [3]uint32{64, 1, 1}, Grid: [3]uint32{64 * groups, 1, 1}, Kernarg: base}
		stats, err := m.Run(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		if want := uint64(groups * 64 / lanes); stats.Groups != groups || stats.Waves != want {
			t.Errorf("%d lanes: %d groups of %d waves, and not %d", lanes, stats.Groups, stats.Waves, want)
		}
		for n := range groups * 64 {
			if got, want := load32(out[4*n:]), uint32(n%64)^32; got != want {
				t.Errorf("%d lanes: item %d has %d, and not %d", lanes, n, got, want)
			}
		}
		// Without the barrier the first wave reads what the second has not written.
		words := parseWords(t, exchange)
		for n, w := range words {
			if w == 0xbfbd0000 {
				words[n] = 0xbf800000 // s_nop
			}
		}
		k.program = NewProgram(0x1000, words)
		if _, err := m.Run(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if early := load32(out) == 0; early != (lanes == 32) {
			t.Errorf("%d lanes without a barrier: the first item has %d", lanes, load32(out))
		}
	}
}
