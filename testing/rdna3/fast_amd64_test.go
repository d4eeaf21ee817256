package rdna3

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// TestFastForms runs every scalar, vector and matrix instruction that has a fast form in both forms on random and edge operands, in waves of
// 32 and 64 lanes, with all and with some lanes active, and in several modes.
func TestFastForms(t *testing.T) {
	if !hasLanes {
		t.Fatal("this processor has no AVX2, FMA and F16C, which the fast forms need")
	}
	r := rand.New(rand.NewPCG(3, 4))
	seen, cases, bad := map[string]int{}, 0, 0
	instructionsOf(t, r, func(i *Inst) {
		if i.Format >= DS {
			return
		}
		fast := prepare(i)
		if fast == nil || fast.plain == nil {
			return
		}
		plain := *fast
		plain.run = fast.plain
		for _, half := range []*Inst{i, i.Y} {
			if half != nil {
				seen[strings.Replace(half.Op.Name, "v_dual_", "v_", 1)]++
			}
		}
		for n := range 6 {
			if testing.Short() && n != 1 && n != 4 {
				continue // `mage test` runs all six
			}
			lanes := 32 << (n & 1)
			exec := ^uint64(0)
			if n >= 3 {
				exec = r.Uint64()
			}
			want := randomWave(r, lanes, modes[r.IntN(len(modes))], exec)
			if n < 2 {
				want.setMode(modes[n])
			}
			if strings.HasPrefix(i.Op.Name, "v_wmma") && n%3 != 0 {
				moderate(r, want, strings.HasSuffix(i.Op.Name, "bf16"))
			}
			got := copyOf(want)
			fast.run(got, fast)
			plain.run(want, &plain)
			cases++
			if d := difference(i, got, want); d != "" {
				if bad++; bad < 20 {
					t.Errorf("%s with %d lanes, EXEC %#x, mode %#x: %s", i, lanes, exec, want.modeBits, d)
				}
			}
		}
	})
	for _, names := range []map[string]bool{keys(vecForms), keys(pkForms), keys(dotForms), keys(carryForms)} {
		for name := range names {
			if seen[name] == 0 {
				t.Errorf("no instruction has run the fast form of %s", name)
			}
		}
	}
	for _, name := range []string{
		"v_wmma_f32_16x16x16_f16", "v_wmma_f32_16x16x16_bf16", "v_wmma_f16_16x16x16_f16", "v_wmma_bf16_16x16x16_bf16",
		"v_wmma_i32_16x16x16_iu8", "v_wmma_i32_16x16x16_iu4", "v_cndmask_b32",
	} {
		if seen[name] == 0 {
			t.Errorf("no instruction has run the fast form of %s", name)
		}
	}
	for name := range scalars {
		if seen[name] == 0 && !strings.Contains(name, "_f32") && !strings.Contains(name, "_f16") && opExists(name) {
			t.Errorf("no instruction has run the fast form of %s", name)
		}
	}
	for name := range integerTests {
		if seen["s_cmp_"+name] == 0 {
			t.Errorf("no instruction has run the fast comparison s_cmp_%s", name)
		}
	}
	for name := range vecTests {
		if seen["v_cmp_"+name] == 0 || seen["v_cmpx_"+name] == 0 {
			t.Errorf("no instruction has run the fast comparison %s", name)
		}
	}
	t.Logf("%d instructions, %d cases, %d differences", len(seen), cases, bad)
}

func keys[V any](m map[string]V) map[string]bool {
	out := map[string]bool{}
	for k := range m {
		out[k] = true
	}
	return out
}

// moderate sets the vector registers to pairs of numbers near one, so that sums of many products are numbers.
func moderate(r *rand.Rand, w *Wave, bf bool) {
	for n := range w.v {
		x := r.Uint32()
		if bf {
			w.v[n] = x&0x807f807f | uint32(124+r.IntN(6))<<7 | uint32(124+r.IntN(6))<<23
		} else {
			w.v[n] = x&0x83ff83ff | uint32(12+r.IntN(6))<<10 | uint32(12+r.IntN(6))<<26
		}
	}
}

// opExists reports whether the table has an instruction.
func opExists(name string) bool {
	for _, op := range Ops() {
		if op.Name == name {
			return true
		}
	}
	return false
}
