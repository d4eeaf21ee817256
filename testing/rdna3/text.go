package rdna3

import (
	"fmt"
	"strings"
)

// String returns the instruction in the assembler syntax of LLVM, for waves of 32 lanes.
func (i *Inst) String() string {
	if i.Y != nil {
		return i.half() + " :: " + i.Y.half()
	}
	args, mods := i.operands()
	s := i.Mnemonic()
	if len(args) > 0 {
		s += " " + strings.Join(args, ", ")
	}
	return s + strings.Join(mods, "")
}

// half returns one half of a VOPD instruction.
func (i *Inst) half() string {
	args := append([]string{regText(i.Dst, 1)}, i.sources()...)
	return i.Op.Name + " " + strings.Join(args, ", ")
}

// Mnemonic returns the name with the suffix that tells the encoding.
func (i *Inst) Mnemonic() string {
	name := i.Op.Name
	long := i.Format == VOP3 || i.Format == VOP3SD
	switch {
	case long && i.DPP.Kind != 0:
		return name + "_e64_dpp"
	case i.DPP.Kind != 0:
		return name + "_dpp"
	case long && i.Op.Format != i.Format:
		return name + "_e64"
	case (i.Format == VOP1 || i.Format == VOP2 || i.Format == VOPC) && !i.Op.onlyShort():
		return name + "_e32"
	}
	return name
}

// onlyShort reports whether LLVM writes no suffix for the short encoding.
func (op *Op) onlyShort() bool {
	switch op.Name {
	case "v_nop", "v_readfirstlane_b32", "v_swap_b32", "v_swap_b16", "v_permlane64_b32", "v_swaprel_b32", "v_pipeflush", "v_dot2acc_f32_f16":
		return true
	}
	return op.takesLiteral()
}

// operands returns the operands and the modifiers after them.
func (i *Inst) operands() (args, mods []string) {
	switch i.Format {
	case SOPP:
		return i.soppOperands(), nil
	case SOPK:
		return i.sopkOperands(), nil
	case SMEM:
		return i.smemOperands()
	case DS:
		return i.dsOperands()
	case FLAT, GLOBAL, SCRATCH:
		return i.flatOperands()
	case MUBUF:
		return i.mubufOperands()
	case SOP1, SOP2, SOPC:
		return i.scalarOperands(), nil
	}
	return i.vectorOperands(), i.vectorModifiers()
}

func (i *Inst) scalarOperands() (args []string) {
	if i.Op.Dst != nil {
		args = append(args, regText(i.Dst, i.Op.Dst.Registers()))
	}
	if strings.HasPrefix(i.Op.Name, "s_sendmsg_rtn") {
		return append(args, "sendmsg("+name(rtnMessages, uint32(i.Src[0]))+")")
	}
	return append(args, i.sources()...)
}

// vectorOperands returns the destinations and sources of a VALU instruction.
func (i *Inst) vectorOperands() (args []string) {
	switch {
	case i.Op.Format == VOPC:
		if !i.Op.isCmpX() {
			args = append(args, regText(i.Dst, 1))
		}
	case i.Op.Dst != nil:
		args = append(args, i.vgprText(i.Dst, *i.Op.Dst, 3))
	}
	carry := strings.Contains(i.Op.Name, "_co_ci_")
	if i.Format == VOP3SD {
		args = append(args, regText(i.SDst, 1))
	} else if carry {
		args = append(args, "vcc_lo")
	}
	args = append(args, i.sources()...)
	if i.Format == VOP2 && (carry || i.Op.Name == "v_cndmask_b32") {
		args = append(args, "vcc_lo")
	}
	return args
}

// sources returns the sources, with the literal of a multiply-add in its place.
func (i *Inst) sources() (out []string) {
	for n := range i.NSrc {
		out = append(out, i.sourceText(n))
	}
	lit := fmt.Sprintf("%#x", i.Literal)
	switch {
	case strings.Contains(i.Op.Name, "fmamk"):
		out = []string{out[0], lit, out[1]}
	case strings.Contains(i.Op.Name, "fmaak"):
		out = append(out, lit)
	}
	return out
}

// kind returns the kind of a source.
func (i *Inst) kind(n int) Kind {
	if n < len(i.Op.Src) {
		return i.Op.Src[n]
	}
	return Kind{Letters: "mask", Count: 1}
}

func (i *Inst) sourceText(n int) string {
	r, k := i.Src[n], i.kind(n)
	var s string
	switch {
	case r == literal:
		s = literalText(i.Literal, k)
	case r.IsVGPR():
		s = i.vgprText(r, k, n)
	default:
		s = regText(r, k.Registers())
	}
	neg, abs := i.Neg>>n&1 != 0, i.Abs>>n&1 != 0
	if i.Format == VOP3P {
		if !i.Op.isMix() {
			return s
		}
		abs = i.NegHi>>n&1 != 0
	}
	if abs {
		s = "|" + s + "|"
	}
	switch constant := r >= zero && r < VGPR0 && r != SCC && (r < sharedBase || r >= half); {
	case neg && constant && !abs:
		s = "neg(" + s + ")"
	case neg:
		s = "-" + s
	}
	return s
}

// isMix reports whether the instruction is a multiply-add of numbers of 16 and 32 bits. Its modifiers are those of VOP3.
func (op *Op) isMix() bool { return strings.HasPrefix(op.Name, "v_fma_mix") }

// literalText returns a literal, as an inline constant if it has the value of one.
func literalText(x uint32, k Kind) string {
	n := int64(int32(x))
	if k.Bits == 16 && k.Count == 1 {
		x, n = x&0xffff, int64(int16(x))
	}
	if n >= -16 && n <= 64 {
		return fmt.Sprint(n)
	}
	if k.Bits != 64 && (k.Bits != 16 || k.Letters == "f") {
		for r := half; r <= inv2Pi; r++ {
			if uint32(inlineFloat(r, k)) == x {
				return specialRegs[r]
			}
		}
	}
	return fmt.Sprintf("%#x", x)
}

// half16 reports whether an operand is half of a register in this instruction, and which one.
func (i *Inst) half16(r Reg, k Kind, n int) (high, ok bool) {
	if k.Bits*k.Count != 16 || !r.IsVGPR() || i.Format == VOP3P || i.Format == VOPD {
		return false, false
	}
	if i.Format == VOP3 || i.Format == VOP3SD {
		return i.OpSel>>n&1 != 0, true
	}
	return r >= VGPR0+128, true
}

// vgprText returns a vector register, of which an instruction with operands of 16 bits names a half.
func (i *Inst) vgprText(r Reg, k Kind, n int) string {
	high, ok := i.half16(r, k, n)
	if !ok {
		return regText(r, k.Registers())
	}
	if i.Format != VOP3 && i.Format != VOP3SD && high {
		r -= 128
	}
	if high {
		return regText(r, 1) + ".h"
	}
	return regText(r, 1) + ".l"
}

var specialRegs = map[Reg]string{
	VCCLo: "vcc_lo", VCCHi: "vcc_hi", Null: "null", M0: "m0", ExecLo: "exec_lo", ExecHi: "exec_hi",
	sharedBase: "src_shared_base", sharedBase + 1: "src_shared_limit", privateBase: "src_private_base",
	privateBase + 1: "src_private_limit",
	half:            "0.5", half + 1: "-0.5", half + 2: "1.0", half + 3: "-1.0", half + 4: "2.0", half + 5: "-2.0",
	half + 6: "4.0", half + 7: "-4.0", inv2Pi: "0.15915494",
	VCCZ: "src_vccz", EXECZ: "src_execz", SCC: "src_scc",
}

// regText returns the name of n registers from r on, or the value of a constant.
func regText(r Reg, n int) string {
	if r.IsVGPR() {
		return span("v", int(r-VGPR0), n)
	}
	switch {
	case r < VCCLo:
		return span("s", int(r), n)
	case r == VCCLo && n == 2:
		return "vcc"
	case r == ExecLo && n == 2:
		return "exec"
	case r >= TTMP0 && r < Null:
		return span("ttmp", int(r-TTMP0), n)
	case r >= zero && r <= lastPos:
		return fmt.Sprint(int(r - zero))
	case r > lastPos && r <= lastNeg:
		return fmt.Sprint(-int(r - lastPos))
	}
	if s, ok := specialRegs[r]; ok {
		return s
	}
	return fmt.Sprintf("reg%d", r)
}

func span(file string, first, n int) string {
	if n == 1 {
		return fmt.Sprintf("%s%d", file, first)
	}
	return fmt.Sprintf("%s[%d:%d]", file, first, first+n-1)
}

// name returns names[n], or n if it has none.
func name(names map[uint32]string, n uint32) string {
	if s, ok := names[n]; ok {
		return s
	}
	return fmt.Sprint(n)
}
