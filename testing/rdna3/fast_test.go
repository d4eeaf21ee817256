package rdna3

import (
	"bufio"
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// edges are numbers at which operations on floating-point numbers and integers change what they do.
var edges = []uint32{
	0, 1, 2, 3, 31, 32, 33, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0x80000001, 0xffffffff,
	0x3f800000, 0xbf800000, 0x007fffff, 0x00800000, 0x807fffff, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000,
	0x7fa00000, 0xffa00001, 0x4f000000, 0x4f800000, 0xcf000000, 0x4effffff, 0x3effffff, 0xbf000000, 0x477fe000, 0x33800000,
	0x3c003c00, 0xbc000001, 0x7c00fc00, 0x7e007d01, 0x03ff0400, 0x7bfffbff, 0x80000001, 0x36003801, 0x0c0d0b08, 0x07060504,
}

// operandFor returns a number of one of the kinds that instructions work on.
func operandFor(r *rand.Rand) uint32 {
	const bias16, bias32 = 15, 127
	half := func() uint32 { return r.Uint32()&0x83ff | uint32(bias16-6+r.IntN(12))<<10 }
	switch r.IntN(6) {
	case 0:
		return edges[r.IntN(len(edges))]
	case 1:
		return r.Uint32()
	case 2:
		return half() | half()<<16
	case 3:
		return r.Uint32() >> r.IntN(32)
	}
	return r.Uint32()&0x807fffff | uint32(bias32-12+r.IntN(24))<<23
}

// operands are numbers to fill registers with.
var operands = func() (out [1 << 16]uint32) {
	r := rand.New(rand.NewPCG(5, 6))
	for n := range out {
		out[n] = operandFor(r)
	}
	return out
}()

// randomWave returns a wave with random registers in a mode.
func randomWave(r *rand.Rand, lanes int, mode uint32, exec uint64) *Wave {
	w := newWave(lanes)
	w.group = &group{mem: &Memory{}}
	copy(w.v, operands[r.IntN(len(operands)-len(w.v)):])
	copy(w.s[:], operands[r.IntN(len(operands)-len(w.s)):])
	w.setMode(mode)
	w.setExec(exec)
	w.scc = r.IntN(2) == 0
	return w
}

// sameNumber compares registers, of which all NaNs are the same.
func sameNumber(k *Kind, a, b uint32) bool {
	switch {
	case a == b:
		return true
	case k == nil || k.Letters != "f" && k.Letters != "bf":
		return false
	case k.Letters == "bf":
		nan := func(x uint32) bool { return x&0x7fff > 0x7f80 }
		return (a&0xffff == b&0xffff || nan(a) && nan(b)) && (a>>16 == b>>16 || nan(a>>16) && nan(b>>16))
	case k.Bits == 32:
		return isNaN32(uint64(a)) && isNaN32(uint64(b))
	case k.Bits == 16:
		low := a&0xffff == b&0xffff || isNaN16(uint64(a)) && isNaN16(uint64(b))
		high := a>>16 == b>>16 || isNaN16(uint64(a>>16)) && isNaN16(uint64(b>>16))
		return low && high
	}
	return false
}

// difference describes where two waves differ.
func difference(i *Inst, got, want *Wave) string {
	var out []string
	for r := range vgprs {
		if slices.Equal(got.v[r*got.lanes:][:got.lanes], want.v[r*got.lanes:][:got.lanes]) {
			continue
		}
		k := i.Op.Dst
		if i.Y != nil && Reg(r)+VGPR0 == i.Y.Dst {
			k = i.Y.Op.Dst
		}
		switch name := i.Op.Name; {
		case strings.HasPrefix(name, "v_fma_mix") && name != "v_fma_mix_f32", strings.HasPrefix(name, "v_cvt_f16"), strings.HasPrefix(name, "v_wmma_f16"):
			k = &Kind{Letters: "f", Bits: 16, Count: 2}
		case strings.HasPrefix(name, "v_wmma_f32"):
			k = &Kind{Letters: "f", Bits: 32, Count: 1}
		case strings.HasPrefix(name, "v_wmma_bf16"):
			k = &Kind{Letters: "bf", Bits: 16, Count: 2}
		}
		for l := range got.lanes {
			a, b := got.v[r*got.lanes+l], want.v[r*got.lanes+l]
			if !sameNumber(k, a, b) && len(out) < 4 {
				out = append(out, fmt.Sprintf("v%d of lane %d is %#x, and not %#x", r, l, a, b))
			}
		}
	}
	for r := range got.s {
		if got.s[r] != want.s[r] {
			out = append(out, fmt.Sprintf("s%d is %#x, and not %#x", r, got.s[r], want.s[r]))
		}
	}
	if got.scc != want.scc || got.pc != want.pc || got.ended != want.ended || got.waiting != want.waiting {
		out = append(out, "SCC, the program counter or the state differ")
	}
	return strings.Join(out, "; ")
}

// copyOf returns a copy of a wave that shares no register with it.
func copyOf(w *Wave) *Wave {
	c := *w
	c.v = append([]uint32(nil), w.v...)
	return &c
}

// modes are those of HIP's compiler, of Tensile's kernels, which flush denormals of 32 bits, and two that no fast form runs.
var modes = []uint32{0x3f0, 0x3c0, 0x3f5, 0x0f0}

// encodeAccess returns a memory instruction with random offsets and addressing, or nothing for other instructions.
func encodeAccess(r *rand.Rand, op *Op) []uint32 {
	const addr, data, data1, dst, base, scalar = 2, 20, 30, 40, 8, 12
	regs, code := uint32(addr|data<<8|dst<<24), uint32(op.Code)
	saddr := []uint32{base, uint32(Null)}[r.IntN(2)] << 16
	switch op.Format {
	case DS:
		return []uint32{0b110110<<26 | code<<18 | r.Uint32()&0x1f1f, regs | data1<<16}
	case FLAT:
		return []uint32{0b110111<<26 | code<<18 | r.Uint32()&0xfff, regs | uint32(Null)<<16}
	case SCRATCH:
		return []uint32{0b110111<<26 | code<<18 | 1<<16 | r.Uint32()&0x7f, regs | saddr | uint32(r.IntN(2))<<23}
	case GLOBAL:
		return []uint32{0b110111<<26 | code<<18 | 2<<16 | r.Uint32()&0x1fff, regs | saddr}
	case MUBUF:
		modes := []uint32{1 << 22, 1 << 23, 3 << 22}[r.IntN(3)]
		return []uint32{0b111000<<26 | code<<18 | r.Uint32()&0xff, addr | data<<8 | base/4<<16 | modes | scalar<<24}
	}
	return nil
}

// instructionsOf calls visit for each instruction of testdata/disassembly.txt, for each of the table in its encodings,
// and for variants of these with other modifiers.
func instructionsOf(t testing.TB, r *rand.Rand, visit func(i *Inst)) {
	t.Helper()
	decoded := func(words []uint32) {
		if i, err := Decode(words); err == nil {
			visit(i)
		}
	}
	f, err := os.Open("testdata/disassembly.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		encoding, _, _ := strings.Cut(lines.Text(), "\t")
		decoded(parseWords(t, encoding))
	}
	ops := Ops()
	slices.SortFunc(ops, func(a, b *Op) int {
		return cmp.Or(cmp.Compare(a.Format, b.Format), cmp.Compare(a.Code, b.Code))
	})
	for _, op := range ops {
		for range 3 {
			decoded(encodeAccess(r, op))
		}
		if op.Format > VOP3P || op.Format == SMEM || op.Format == SOPK || op.Format == SOPP {
			continue
		}
		decoded(encode(op, op.Format))
		if op.Format <= SOPC {
			for _, constant := range []uint32{193, 136, uint32(Null), uint32(M0), uint32(literal)} {
				w := encode(op, op.Format)
				w[0] = w[0]&^0xff | constant
				decoded(append(w, r.Uint32()))
			}
			continue
		}
		if op.Format == VOP1 || op.Format == VOP2 || op.Format == VOPC {
			dpp := encode(op, op.Format)
			dpp[0] = dpp[0]&^0x1ff | uint32(dpp16)
			for _, control := range []uint32{0xb1, 0x111, 0x101, 0x124, 0x140, 0x141, 0x153, 0x165} {
				decoded(append(dpp[:1:1], 2|control<<8|r.Uint32()&0xff<<16|0x33<<24|r.Uint32()&0xff000000))
			}
			dpp[0] = dpp[0]&^0x1ff | uint32(dpp8)
			decoded(append(dpp[:1:1], 2|r.Uint32()<<8))
			decoded(encode(op, VOP3))
		}
		for range 12 {
			w := encode(op, op.Format)
			switch op.Format {
			case VOP1, VOP2, VOPC:
				w = encode(op, VOP3)
			}
			if len(w) < 2 {
				continue
			}
			modifiers := uint32(0x7f00) // absolute values and op_sel
			if op.Format == VOP3SD || strings.Contains(op.Name, "_co_ci_") {
				modifiers = 0 // where the scalar destination is
			}
			w[0] ^= r.Uint32() & (modifiers | uint32(r.IntN(2))<<15) // and clamp
			w[1] ^= r.Uint32() & 0xf8000000                          // negations, and the output modifier
			if r.IntN(3) == 0 {
				w[1] = w[1]&^(0x1ff<<9) | []uint32{5, 193, 242, 127, 106}[r.IntN(5)]<<9
			}
			if r.IntN(3) == 0 {
				w[1] = w[1]&^0x1ff | []uint32{7, 200, 243, 124, 255}[r.IntN(5)]
			}
			decoded(append(w, r.Uint32()))
		}
	}
}
