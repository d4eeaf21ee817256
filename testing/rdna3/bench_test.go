package rdna3

import (
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// benchInstructions are instructions of each kind that kernels of libggml-hip consist of.
var benchInstructions = []struct{ name, words string }{
	{"v_add_f32", "06080680"},
	{"v_fma_f32", "D613000F 04421B07"},
	{"v_cvt_f32_f16", "7E021701"},
	{"v_cndmask_b32", "02020501"},
	{"v_add_co_ci_u32", "40020501"},
	{"v_cmp_gt_u32", "7C980501"},
	{"v_mov_b32_dpp", "7E0402FA FF011101"},
	{"v_pk_fma_f16", "CC0E4028 1C622108"},
	{"v_dot4_i32_iu8", "CC164028 7C622108"},
	{"v_dual_add_f32", "C9100101 02020102"},
	{"v_wmma_f32_16x16x16_f16", "CC404028 1C622108"},
	{"v_wmma_i32_16x16x16_iu8", "CC444028 7C622108"},
	{"s_add_u32", "80020403"},
	{"ds_load_b128", "DBFC0000 51000000"},
	{"global_load_b32", "DC520000 02020000"},
	{"global_load_b128", "DC5E0000 10020000"},
}

// processorTime returns the time that this process has run on all processors.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// report reports lane-instructions a second, and a second of processor time, which other programs do not shorten.
func report(b *testing.B, lanes uint64, spent time.Duration) {
	b.ReportMetric(float64(lanes)/b.Elapsed().Seconds()/1e6, "Mlanes/s")
	b.ReportMetric(float64(lanes)/spent.Seconds()/1e6, "Mlanes/cpu-s")
}

// BenchmarkInstructions measures instructions on a wave of 32 lanes, in the fast and in the plain form.
func BenchmarkInstructions(b *testing.B) {
	for _, bc := range benchInstructions {
		i, err := Decode(parseWords(b, bc.words))
		if err != nil || !strings.HasPrefix(i.String(), bc.name) {
			b.Fatalf("%s: the words are %v (%v)", bc.name, i, err)
		}
		fast := prepare(i)
		plain := *fast
		if fast.plain != nil {
			plain.run = fast.plain
		}
		for _, form := range []struct {
			name string
			s    *step
		}{{"fast", fast}, {"plain", &plain}} {
			b.Run(bc.name+"/"+form.name, func(b *testing.B) {
				const base = 0x7000_0000
				w := newTestWave()
				w.group.lds = make([]byte, 1<<16)
				w.group.mem.Map(base, make([]byte, 1<<16))
				w.setS64(2, base)
				for l := range w.reg(VGPR0) {
					w.reg(VGPR0)[l] = uint32(16 * l)
				}
				spent := processorTime(b)
				for b.Loop() {
					form.s.run(w, form.s)
				}
				report(b, uint64(b.N)*32, processorTime(b)-spent)
			})
		}
	}
}

// benchKernel is a loop as in a product of quantised numbers: two loads, products of bytes, a conversion, a multiply-add
// of mixed numbers, and the scalar instructions around them. v0 is the offset of the lane, s[0:1] the address.
const benchKernel = "30000084" + // v_lshlrev_b32 v0, 4, v0
	" BE8400FF 00000080" + // s_mov_b32 s4, 0x80
	" DC5E0000 08000000" + // global_load_b128 v[8:11], v0, s[0:1]
	" DC520000 10000000" + // global_load_b32 v16, v0, s[0:1]
	" BF89FC07 BF870001" + // s_waitcnt, s_delay_alu
	" CC164014 7C521108 CC164014 7C521109 CC164014 7C52110A CC164014 7C52110B" + // v_dot4_i32_iu8 v20, v8 to v11, v8, v20
	" 7E2A0B14 7E2C1710" + // v_cvt_f32_i32 v21, v20; v_cvt_f32_f16 v22, v16
	" D6130017 045E2D15" + // v_fma_f32 v23, v21, v22, v23
	" 80848104" + // s_sub_u32 s4, s4, 1
	" BF078004 BFA2FFEB" + // s_cmp_lg_u32 s4, 0; s_cbranch_scc1 to the loads
	" BFB00000"

// BenchmarkKernel runs groups of 256 items on one and on two processors.
func BenchmarkKernel(b *testing.B) {
	words := parseWords(b, benchKernel)
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprint(workers), func(b *testing.B) {
			const base = 0x7000_0000
			data := make([]byte, 1<<16)
			for n := range data {
				data[n] = byte(n * 37)
			}
			binary.LittleEndian.PutUint64(data, base)
			m := &Memory{}
			m.Map(base, data)
			k := kernelOf(words...)
			var lanes uint64
			spent := processorTime(b)
			for b.Loop() {
				stats, err := m.Run(b.Context(), &Dispatch{
					Kernel: k, Group: [3]uint32{256, 1, 1}, Grid: [3]uint32{256 * 4, 1, 1}, Kernarg: base, Workers: workers,
				})
				if err != nil {
					b.Fatal(err)
				}
				lanes += stats.Lanes
			}
			report(b, lanes, processorTime(b)-spent)
		})
	}
}
