package rdna3

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"testing"
)

// A constant in an instruction has the width of the source: it computes what a register
// with the same number does, above all the carry of s_add_u32 s0, s0, -1, by which loops
// of 64 bits count down.
func TestConstantsAreAsRegisters(t *testing.T) {
	checked := 0
	registers := regexp.MustCompile("pc_b64|movrel|lane|perm|swap|rfe") // what the source has to be
	for _, op := range Ops() {
		f := op.Format
		if registers.MatchString(op.Name) {
			continue
		}
		switch f {
		case SOP1, SOP2, SOPC, VOP3, VOP3SD:
		case VOP1, VOP2, VOPC:
			f = VOP3
		default:
			continue
		}
		for n, k := range op.Src {
			if k.Count != 1 || !slices.Contains([]string{"u", "i", "b"}, k.Letters) {
				continue
			}
			for _, value := range []int64{-1, -16, 1, 64} {
				i, err := Decode(encode(op, f))
				if err != nil || n >= i.NSrc || i.Src[n] >= zero && i.Src[n] < VGPR0 {
					continue // a source that the encoding fixes
				}
				if differ := constantDiffers(t, i, n, k, value); differ != "" {
					t.Errorf("%s with %d as source %d: %s", op.Name, value, n, differ)
				}
				checked++
			}
		}
	}
	if checked < 1000 {
		t.Errorf("%d instructions were checked", checked)
	}
}

// constantDiffers runs an instruction with a number as constant and in the register of
// source n, and describes the difference.
func constantDiffers(t *testing.T, i *Inst, n int, k Kind, value int64) string {
	t.Helper()
	bits := uint64(value)
	if k.Bits < 64 {
		bits &= 1<<k.Bits - 1
	}
	constant := *i
	constant.Src[n] = zero + Reg(value)
	if value < 0 {
		constant.Src[n] = lastPos + Reg(-value)
	}
	var waves [2]*Wave
	for side, inst := range []*Inst{i, &constant} {
		s := prepare(inst)
		if s == nil {
			return ""
		}
		w, r := newTestWave(), rand.New(rand.NewPCG(uint64(i.Op.Code), uint64(n)))
		for reg := range w.s[:VCCLo] {
			w.s[reg] = r.Uint32()
		}
		w.s[VCCLo] = r.Uint32()
		for reg := range Reg(12) {
			for lane := range 32 {
				w.setNumber(VGPR0+reg, lane, 4, uint64(r.Uint32()))
			}
		}
		if i.Src[n] >= VGPR0 {
			for lane := range 32 {
				w.setNumber(i.Src[n], lane, max(k.Bits/8, 4), bits)
			}
		} else {
			w.s[i.Src[n]] = uint32(bits)
			if k.Bits == 64 {
				w.s[i.Src[n]+1] = uint32(bits >> 32)
			}
		}
		s.run(w, s)
		waves[side] = w
	}
	a, b := waves[0], waves[1]
	switch {
	case a.scc != b.scc:
		return fmt.Sprintf("the condition is %v instead of %v", b.scc, a.scc)
	case a.s != b.s:
		return "other scalar registers"
	case !slices.Equal(a.v, b.v):
		return "other vector registers"
	}
	return ""
}
