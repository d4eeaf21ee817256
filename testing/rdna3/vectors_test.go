package rdna3

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// A vectorSet has the vectors of one instruction.
type vectorSet struct {
	name   string
	approx bool
	rows   [][]string
}

// readVectors reads the results by AMD's pseudo-code.
func readVectors(t testing.TB) (sets []*vectorSet) {
	t.Helper()
	f, err := os.Open("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) == 0:
		case fields[0] == "=":
			sets = append(sets, &vectorSet{name: fields[1], approx: len(fields) > 2})
		default:
			sets[len(sets)-1].rows = append(sets[len(sets)-1].rows, fields)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return sets
}

// opNamed returns an entry of the table that the vectors are for.
func opNamed(t testing.TB, name string) *Op {
	t.Helper()
	for f := SOP1; f <= VOP3P; f++ {
		for _, op := range table[f] {
			if op.Format == f && op.Name == name {
				return op
			}
		}
	}
	t.Fatalf("%s is not in the table", name)
	return nil
}

func hexNumber(t testing.TB, s string) uint64 {
	t.Helper()
	x, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// Registers of the instructions under test.
const (
	testDst  = VGPR0 + 10
	testSDst = Reg(20)
)

// encode returns the instruction in an encoding, with v2, v4 and v6 or s2 and s4 as sources.
func encode(op *Op, f Format) []uint32 {
	code := uint32(op.Code)
	d := uint32(testDst - VGPR0)
	src := [3]uint32{256 + 2, 256 + 4, 256 + 6}
	long := src[0] | src[1]<<9 | src[2]<<18
	switch f {
	case SOP1:
		return []uint32{0b101111101<<23 | uint32(testSDst)<<16 | code<<8 | 2}
	case SOP2:
		return []uint32{0b10<<30 | code<<23 | uint32(testSDst)<<16 | 4<<8 | 2}
	case SOPC:
		return []uint32{0b101111110<<23 | code<<16 | 4<<8 | 2}
	case VOP1:
		return []uint32{0b0111111<<25 | d<<17 | code<<9 | src[0]}
	case VOP2:
		return []uint32{code<<25 | d<<17 | 4<<9 | src[0]}
	case VOPC:
		return []uint32{0b0111110<<25 | code<<17 | 4<<9 | src[0]}
	case VOP3P:
		neg := uint32(0)
		if strings.Contains(op.Name, "_iu") {
			neg = 3 << 29
		}
		return []uint32{0b11001100<<24 | code<<16 | 1<<14 | d, long | 3<<27 | neg}
	case VOP3SD:
		return []uint32{0b110101<<26 | code<<16 | uint32(testSDst)<<8 | d, long}
	}
	if strings.Contains(op.Name, "_co_ci_") {
		carry := src[0] | src[1]<<9 | uint32(VCCLo)<<18
		return []uint32{0b110101<<26 | (code+vop3OfVOP2)<<16 | uint32(testSDst)<<8 | d, carry}
	}
	switch op.Format {
	case VOP2:
		code += vop3OfVOP2
	case VOP1:
		code += vop3OfVOP1
	case VOPC:
		d = uint32(testSDst)
	}
	if op.Name == "v_cndmask_b32" || op.Name == "v_cndmask_b16" {
		long = src[0] | src[1]<<9 | uint32(VCCLo)<<18
	}
	return []uint32{0b110101<<26 | code<<16 | d, long}
}

// newTestWave returns a wave of 32 lanes in the mode of HIP's kernels: to nearest, with denormals, IEEE.
func newTestWave() *Wave {
	w := newWave(32)
	w.group = &group{mem: &Memory{}}
	w.setMode(0x3f0)
	w.setExec(0xffffffff)
	return w
}

// TestPseudocode runs every instruction that has vectors on its operands, in each of its encodings.
func TestPseudocode(t *testing.T) {
	for _, set := range readVectors(t) {
		op := opNamed(t, set.name)
		encodings := []Format{op.Format}
		if op.Format == VOP1 || op.Format == VOP2 || op.Format == VOPC {
			encodings = append(encodings, VOP3)
		}
		for _, f := range encodings {
			t.Run(fmt.Sprint(set.name, "/", f), func(t *testing.T) {
				i, err := Decode(encode(op, f))
				if err != nil {
					t.Fatal(err)
				}
				s := prepare(i)
				if s == nil {
					t.Fatal("not implemented")
				}
				if bad := set.check(t, s); bad != "" {
					t.Error(bad)
				}
			})
		}
	}
}

// check runs the vectors and describes those with another result.
func (v *vectorSet) check(t testing.TB, s *step) string {
	var bad []string
	for n, row := range v.rows {
		var got []string
		if s.inst.Format <= SOPP {
			got = v.runScalar(t, s, row)
		} else {
			got = v.runVector(t, s, row, n%32)
		}
		want := row[len(row)-2:]
		if !v.same(t, got[0], want[0]) || got[1] != want[1] {
			bad = append(bad, fmt.Sprintf("%v gives %v", row, got))
		}
	}
	return strings.Join(bad, "\n")
}

// same compares results. Approximate ones may differ in the last bit.
func (v *vectorSet) same(t testing.TB, got, want string) bool {
	if got == want {
		return true
	}
	if !v.approx || got == "nan" || want == "nan" {
		return false
	}
	a, b := hexNumber(t, got), hexNumber(t, want)
	return max(a, b)-min(a, b) <= 1
}

// text returns a result as the vectors have it.
func resultText(k *Kind, x uint64) string {
	if k == nil {
		return "0"
	}
	if n := k.Bits * k.Count; n < 64 {
		x &= 1<<n - 1
	}
	if k.Count == 2 && k.Letters == "f" {
		for _, shift := range []int{0, 16} {
			if isNaN16(x >> shift) {
				x = x&^(0xffff<<shift) | 0x7e00<<shift
			}
		}
	}
	if ty := k.typeOf(); ty != nil && k.Count == 1 && ty.isNaN(x) || k.Letters == "bf" && x&0x7fff > 0x7f80 {
		return "nan"
	}
	return strconv.FormatUint(x, 16)
}

func (v *vectorSet) runScalar(t testing.TB, s *step, row []string) []string {
	w := newTestWave()
	src, old, flag := row[:len(row)-4], hexNumber(t, row[len(row)-4]), row[len(row)-3]
	for n, x := range src {
		w.setS64(Reg(2+2*n), hexNumber(t, x))
	}
	w.setS64(testSDst, old)
	w.scc = flag == "1"
	w.s[ExecLo], w.s[ExecHi] = 0xf0f0f0f0, 0
	s.run(w, s)
	k := s.inst.Op.Dst
	return []string{resultText(k, uint64(w.s[testSDst])|uint64(w.s[testSDst+1])<<32), strconv.FormatUint(flagOf(w.scc), 10)}
}

func (v *vectorSet) runVector(t testing.TB, s *step, row []string, lane int) []string {
	w := newTestWave()
	src, old, flag := row[:len(row)-4], hexNumber(t, row[len(row)-4]), row[len(row)-3] == "1"
	for n, x := range src {
		w.setNumber(VGPR0+Reg(2+2*n), lane, 8, hexNumber(t, x))
	}
	w.setNumber(testDst, lane, 8, old)
	w.s[VCCLo] = uint32(flagOf(flag)) << lane
	s.run(w, s)
	i, k := s.inst, s.inst.Op.Dst
	out := w.s[VCCLo]
	switch {
	case i.Op.isCmpX():
		out = w.s[ExecLo]
	case i.Format == VOP3SD, i.Format == VOP3 && i.Op.Format == VOPC:
		out = w.s[testSDst]
	}
	return []string{resultText(k, w.number(testDst, lane, 8)), strconv.Itoa(int(out >> lane & 1))}
}

// TestVectorsFindMutants replaces each operation by variants of it, of which the vectors have to find every one.
func TestVectorsFindMutants(t *testing.T) {
	mutants := map[string]func(laneFunc) laneFunc{
		"result + 3":      func(f laneFunc) laneFunc { return func(e *env, a, b, c uint64) uint64 { return f(e, a, b, c) + 3 } },
		"sources swapped": func(f laneFunc) laneFunc { return func(e *env, a, b, c uint64) uint64 { return f(e, b, a, c) } },
		"third source 0":  func(f laneFunc) laneFunc { return func(e *env, a, b, _ uint64) uint64 { return f(e, a, b, 0) } },
		"no carry": func(f laneFunc) laneFunc {
			return func(e *env, a, b, c uint64) uint64 { r := f(e, a, b, c); e.out = false; return r }
		},
		"flag inverted": func(f laneFunc) laneFunc {
			return func(e *env, a, b, c uint64) uint64 { e.flag = !e.flag; return f(e, a, b, c) }
		},
		"nothing added up": func(f laneFunc) laneFunc {
			return func(e *env, a, b, c uint64) uint64 { e.old = 0; return f(e, a, b, c) }
		},
	}
	found := 0
	for _, set := range readVectors(t) {
		op := opNamed(t, set.name)
		if op.Format < VOP1 {
			continue
		}
		i, err := Decode(encode(op, op.Format))
		if err != nil {
			t.Fatal(err)
		}
		s := plainVALU(i)
		if s == nil {
			continue
		}
		if s.test != nil {
			inverted := *s
			inverted.test = func(a, b uint64) bool { return !s.test(a, b) }
			swapped := *s
			swapped.test = func(a, b uint64) bool { return s.test(b, a) }
			for name, m := range map[string]*step{"inverted": &inverted, "swapped": &swapped} {
				switch {
				case set.check(t, m) != "":
					found++
				case !symmetric(set.name, name):
					t.Errorf("%s: the vectors do not notice that the comparison is %s", set.name, name)
				}
			}
			continue
		}
		if s.lane == nil {
			continue
		}
		for name, mutate := range mutants {
			if !applies(op, name) {
				continue
			}
			m := *s
			m.lane = mutate(s.lane)
			switch {
			case set.check(t, &m) != "":
				found++
			case !symmetric(set.name, name):
				t.Errorf("%s: the vectors do not notice: %s", set.name, name)
			}
		}
	}
	t.Logf("%d mutants found", found)
}

// applies reports whether a mutation can change what the instruction does.
func applies(op *Op, mutation string) bool {
	switch mutation {
	case "sources swapped":
		return len(op.Src) > 1
	case "third source 0":
		return len(op.Src) > 2 && op.Src[2].Letters != "mask"
	case "no carry":
		return strings.Contains(op.Name, "_co_") || strings.HasPrefix(op.Name, "v_mad_u64") || strings.HasPrefix(op.Name, "v_mad_i64")
	case "flag inverted":
		return strings.Contains(op.Name, "cndmask") || strings.Contains(op.Name, "_co_ci_") || strings.Contains(op.Name, "div_fmas")
	case "nothing added up":
		return strings.Contains(op.Name, "fmac") || strings.Contains(op.Name, "dot2acc")
	}
	return true
}

// symmetric reports whether an instruction has the same result with its first two sources swapped.
func symmetric(name, mutation string) bool {
	if !strings.Contains(mutation, "swapped") {
		return false
	}
	for _, s := range []string{
		"v_add_", "v_mul_", "v_fma", "v_min", "v_max", "v_med", "v_and_", "v_or", "v_xor", "v_xnor", "v_xad", "v_sad", "v_lerp", "v_mad_", "v_dot",
		"v_pk_mul", "v_pk_add", "v_pk_fma", "v_pk_min", "v_pk_max", "v_pk_mad", "v_add3", "v_div_fmas", "_eq_", "_ne_", "_lg_", "_nlg_", "_neq_", "_o_", "_u_", "_f_", "_t_",
	} {
		if strings.HasPrefix(name, s) || s[0] == '_' && strings.Contains(name, s) {
			return true
		}
	}
	return false
}
