package rdna3

import "strings"

// A vector is a VALU instruction that is ready to run on all lanes at once. Its plain form in valu.go computes lane by
// lane, for all modifiers and modes; TestFastForms compares the two.
type vector struct {
	form   vecFunc
	test   *vecTest // of a comparison
	src    [3]operand
	n      int // sources
	dst    int // vector register
	post   []laneChange
	half   vecFunc // puts a result of 16 bits into its half of the destination, or nil
	dpp    *lanePattern
	floats bool // MODE can change the result
	f32    bool // the result is a float32, which MODE may flush
}

// A laneChange is something that is done to all lanes of a source or a result.
type laneChange struct {
	f   vecFunc
	arg *[64]uint32 // second source, the same in all lanes
}

type operandKind uint8

const (
	inVector operandKind = iota
	inScalar
	inConstant
)

// An operand is a source of a vector.
type operand struct {
	kind     operandKind
	reg      int
	constant *[64]uint32
	pre      []laneChange
	f32      bool
}

var (
	signs32, magnitudes32 = constantLanes(1 << 31), constantLanes(1<<31 - 1)
	signs16, magnitudes16 = constantLanes(0x80008000), constantLanes(0x7fff7fff)
	unused                = constantLanes(0)
)

func constantLanes(x uint32) *[64]uint32 {
	var out [64]uint32
	for l := range out {
		out[l] = x
	}
	return &out
}

// compileVector returns the fast form of an instruction, or nil if it has none.
func compileVector(i *Inst) *vector {
	name := strings.Replace(i.Op.Name, "v_dual_", "v_", 1)
	v := &vector{n: i.NSrc, dst: int(i.Dst - VGPR0)}
	switch dot := dotForms[name]; {
	case dot[0] != nil:
		v.form = dot[i.Neg&3]
	case pkForms[name] != nil:
		v.form = pkForms[name]
	case i.Op.isMix():
		v.form = vecFmaF32
	case i.Op.Format == VOPC:
		return v.comparison(i)
	default:
		v.form = vecForms[name]
	}
	if v.form == nil || !v.result(i) || !v.sources(i) {
		return nil
	}
	if i.accumulates() {
		v.n = 3
		v.src[2] = operand{reg: v.dst, f32: v.f32}
		if v.half != nil && i.writesHigh() {
			v.src[2].pre = []laneChange{{vecHighHalf, unused}}
		}
	}
	if strings.HasPrefix(name, "v_fmaak") || strings.HasPrefix(name, "v_fmamk") {
		v.n, v.src[2] = 3, operand{kind: inConstant, constant: constantLanes(i.Literal)}
		if name == "v_fmamk_f32" {
			v.src[1], v.src[2] = v.src[2], v.src[1]
		}
	}
	return v
}

// writesHigh reports whether a result of 16 bits goes to the upper half of its register.
func (i *Inst) writesHigh() bool {
	high, _ := i.half16(i.Dst, *i.Op.Dst, 3)
	return high
}

// result prepares what is done to the result. It reports whether the fast form can do it.
func (v *vector) result(i *Inst) bool {
	k := *i.Op.Dst
	width := k.Bits * k.Count
	v.f32 = k.Letters == "f" && k.Bits == 32 && k.Count == 1
	v.floats = k.Letters == "f" || k.Letters == "bf"
	if width > 32 || !i.Dst.IsVGPR() {
		return false
	}
	if i.Op.isMix() && i.Op.Name != "v_fma_mix_f32" {
		v.f32 = false
		v.post = append(v.post, laneChange{vecCvtF16F32, unused})
		v.half = vecToLow
		if strings.HasPrefix(i.Op.Name, "v_fma_mixhi") {
			v.half = vecToHigh
		}
		return !i.Clamp
	}
	if high, is16 := i.half16(i.Dst, k, 3); is16 {
		v.half = vecToLow
		if high {
			v.half = vecToHigh
			if i.Format != VOP3 && i.Format != VOP3SD {
				v.dst -= 128
			}
		}
	}
	if (i.Omod != 0 || i.Clamp) && !v.f32 {
		return false
	}
	if i.Omod != 0 {
		v.post = append(v.post, laneChange{[]vecFunc{vecTimes2, vecTimes4, vecHalved}[i.Omod-1], unused})
	}
	if i.Clamp {
		v.post = append(v.post, laneChange{vecClamp32, unused})
	}
	return true
}

// sources prepares the sources. It reports whether the fast form can read them.
func (v *vector) sources(i *Inst) bool {
	for n := range v.n {
		k := i.kind(n)
		if k.Letters == "mask" || k.Bits*k.Count > 32 {
			return false
		}
		o, ok := sourceOperand(i, n, k)
		if !ok {
			return false
		}
		v.src[n] = o
		v.floats = v.floats || k.Letters == "f"
	}
	if i.DPP.Kind != 0 {
		v.dpp = i.DPP.pattern()
	}
	return true
}

// sourceOperand returns a source with what its modifiers do.
func sourceOperand(i *Inst, n int, k Kind) (operand, bool) {
	r := i.Src[n]
	if i.Format != VOP3P && (k.Count != 1 || k.Bits != 16 && k.Bits != 32) && (i.Neg|i.Abs)>>n&1 != 0 {
		return operand{}, false // AMD documents no sign for these
	}
	narrow := i.Op.isMix() && i.OpSelHi>>n&1 != 0
	switch {
	case narrow:
		k = Kind{Letters: "f", Bits: 16, Count: 1}
	case i.Op.isMix():
		k = Kind{Letters: "f", Bits: 32, Count: 1}
	}
	o := operand{reg: int(r), f32: k.Letters == "f" && k.Bits == 32}
	high, _ := i.half16(VGPR0, k, n)
	switch {
	case r.IsVGPR():
		var is16 bool
		high, is16 = i.half16(r, k, n)
		o.reg = int(r - VGPR0)
		if is16 && high && i.Format != VOP3 && i.Format != VOP3SD {
			o.reg -= 128
		}
	case r < zero:
		o.kind = inScalar
	case !r.isConstant():
		return o, false
	default:
		o.kind = inConstant
		high = false
	}
	if high {
		o.pre = append(o.pre, laneChange{vecHighHalf, unused})
	}
	switch {
	case i.Op.isMix():
		o.mix(i, n, narrow)
	case i.Format == VOP3P || i.Op.Name == "v_pk_fmac_f16":
		if pkForms[i.Op.Name] != nil {
			o.halves(i, n, k)
		}
	default:
		o.signs(i, n, k)
	}
	if o.kind == inConstant {
		x := uint32((&Wave{lanes: 32}).scalar(i, r, k))
		o.constant = constantLanes(x)
		for _, c := range o.pre {
			c.f(&o.constant[0], &o.constant[0], &c.arg[0], &c.arg[0], len(o.constant))
		}
		o.pre = nil
	}
	return o, true
}

// signs adds the absolute value and the negation.
func (o *operand) signs(i *Inst, n int, k Kind) {
	signs, magnitudes := signs32, magnitudes32
	if k.Bits == 16 {
		signs, magnitudes = signs16, magnitudes16
	}
	if i.Abs>>n&1 != 0 {
		o.pre = append(o.pre, laneChange{vecAndB32, magnitudes})
	}
	if i.Neg>>n&1 != 0 {
		o.pre = append(o.pre, laneChange{vecXorB32, signs})
	}
}

// mix adds the conversion of a source of fma_mix, whose upper negation is an absolute value.
func (o *operand) mix(i *Inst, n int, narrow bool) {
	if narrow {
		if i.OpSel>>n&1 != 0 {
			o.pre = append(o.pre, laneChange{vecHighHalf, unused})
		}
		o.pre = append(o.pre, laneChange{vecCvtF32F16, unused})
	}
	if i.NegHi>>n&1 != 0 {
		o.pre = append(o.pre, laneChange{vecAndB32, magnitudes32})
	}
	if i.Neg>>n&1 != 0 {
		o.pre = append(o.pre, laneChange{vecXorB32, signs32})
	}
}

// halves adds the choice and the negation of the halves of a packed source.
func (o *operand) halves(i *Inst, n int, k Kind) {
	low, high := i.OpSel>>n&1, i.OpSelHi>>n&1
	switch {
	case low == 0 && high == 0:
		o.pre = append(o.pre, laneChange{vecLowTwice, unused})
	case low == 1 && high == 1:
		o.pre = append(o.pre, laneChange{vecHighTwice, unused})
	case low == 1:
		o.pre = append(o.pre, laneChange{vecSwapped, unused})
	}
	if negated := uint32(i.Neg>>n&1)<<15 | uint32(i.NegHi>>n&1)<<31; negated != 0 && k.Letters == "f" {
		o.pre = append(o.pre, laneChange{vecXorB32, constantLanes(negated)})
	}
}

// comparison prepares a comparison.
func (v *vector) comparison(i *Inst) *vector {
	name := strings.SplitN(i.Op.Name, "_", 3)
	t, ok := vecTests[name[len(name)-1]]
	if !ok || !v.sources(i) {
		return nil
	}
	v.test = &t
	switch k := i.kind(0); {
	case k.Bits == 16 && k.Letters == "f":
		for n := range v.n {
			v.src[n].then(vecCvtF32F16)
		}
	case k.Bits == 16:
		for n := range v.n {
			v.src[n].then(vecToTop)
		}
	}
	return v
}

// then adds a change after the others.
func (o *operand) then(f vecFunc) {
	if o.kind == inConstant {
		f(&o.constant[0], &o.constant[0], &unused[0], &unused[0], len(o.constant))
		return
	}
	o.pre = append(o.pre, laneChange{f, unused})
}
