package rdna3

import (
	"errors"
	"fmt"
)

// A Reg is the code of an operand: 0 to 105 are scalar registers, 106 to 255 special registers and
// constants, 256 to 511 vector registers.
type Reg uint16

// Codes of operands with a meaning of their own.
const (
	VCCLo       Reg = 106
	VCCHi       Reg = 107
	TTMP0       Reg = 108
	Null        Reg = 124
	M0          Reg = 125
	ExecLo      Reg = 126
	ExecHi      Reg = 127
	zero        Reg = 128
	lastPos     Reg = 192 // 64
	lastNeg     Reg = 208 // -16
	dpp8        Reg = 233
	dpp8FI      Reg = 234
	sharedBase  Reg = 235
	privateBase Reg = 237
	half        Reg = 240
	inv2Pi      Reg = 248
	dpp16       Reg = 250
	VCCZ        Reg = 251
	EXECZ       Reg = 252
	SCC         Reg = 253
	literal     Reg = 255
	VGPR0       Reg = 256
)

// IsVGPR reports whether r is a vector register.
func (r Reg) IsVGPR() bool { return r >= VGPR0 }

// A DPP says which lane of the first source each lane reads.
type DPP struct {
	Kind       Reg // 0 for none, dpp16, dpp8 or dpp8FI
	Control    uint32
	FetchInact bool // reads lanes that EXEC excludes
	BoundZero  bool // reads zero where the lane does not exist
	RowMask    uint8
	BankMask   uint8
}

// An Inst is a decoded instruction.
type Inst struct {
	Op     *Op
	Format Format // the encoding it has, which may be longer than Op.Format
	Size   int    // in bytes
	Dst    Reg    // also the data of a scalar load
	SDst   Reg    // the scalar destination of VOP3SD
	Src    [3]Reg
	NSrc   int

	Literal uint32
	Imm     int32 // SIMM16, or the offset of a memory instruction

	Neg, NegHi, Abs, OpSel, OpSelHi uint8 // a bit a source; bit 3 of OpSel is the destination
	Omod                            uint8
	Clamp                           bool
	DPP                             DPP

	// Memory instructions.
	Addr, Data, Data1, SAddr, SBase Reg
	Offset0, Offset1                uint8
	GLC, DLC, SLC, TFE, GDS, SVE    bool
	Offen, Idxen                    bool

	Y *Inst // the second half of VOPD
}

// ErrShort is the error of a program that ends inside an instruction.
var ErrShort = errors.New("the program ends inside an instruction")

// An UnknownError reports an encoding that is not in the table.
type UnknownError struct{ Word uint32 }

// Error implements error.
func (e *UnknownError) Error() string { return fmt.Sprintf("unknown instruction %08x", e.Word) }

// decoder reads the words of one instruction.
type decoder struct {
	words []uint32
	inst  Inst
	err   error
}

// Decode returns the first instruction in words.
func Decode(words []uint32) (*Inst, error) {
	if len(words) == 0 {
		return nil, ErrShort
	}
	d := &decoder{words: words}
	d.inst.Size = 4
	w := words[0]
	switch {
	case w>>31 == 0:
		d.vop12c(w)
	case w>>30 == 0b10:
		d.scalar(w)
	default:
		d.long(w)
	}
	if d.err != nil {
		return nil, d.err
	}
	return &d.inst, nil
}

// field returns the bits hi to lo of w.
func field(w uint32, hi, lo int) uint32 { return w >> lo & (1<<(hi-lo+1) - 1) }

// bit reports whether a bit of w is set.
func bit(w uint32, n int) bool { return w>>n&1 != 0 }

// op sets the instruction's entry in the table.
func (d *decoder) op(f Format, code uint32) *Op {
	op := table[f][uint16(code)]
	if op == nil {
		d.err = &UnknownError{d.words[0]}
		op = &Op{}
	}
	d.inst.Op, d.inst.Format, d.inst.NSrc = op, f, len(op.Src)
	return op
}

// next returns the next word.
func (d *decoder) next() uint32 {
	n := d.inst.Size / 4
	if n >= len(d.words) {
		d.err = ErrShort
		return 0
	}
	d.inst.Size += 4
	return d.words[n]
}

// literals reads the literal that sources have.
func (d *decoder) literals(srcs ...Reg) {
	for _, s := range srcs {
		if s == literal {
			d.inst.Literal = d.next()
			return
		}
	}
}

func (d *decoder) scalar(w uint32) {
	i := &d.inst
	src0, src1, dst := Reg(field(w, 7, 0)), Reg(field(w, 15, 8)), Reg(field(w, 22, 16))
	i.Imm = int32(int16(field(w, 15, 0)))
	switch w >> 23 {
	case 0b101111101:
		d.op(SOP1, field(w, 15, 8))
		i.Dst, i.Src[0] = dst, src0
		d.literals(src0)
	case 0b101111110:
		d.op(SOPC, field(w, 22, 16))
		i.Src = [3]Reg{src0, src1}
		d.literals(src0, src1)
	case 0b101111111:
		d.op(SOPP, field(w, 22, 16))
	default:
		if w>>28 == 0b1011 {
			d.op(SOPK, field(w, 27, 23))
			i.Dst = dst
			if i.Op.Name == "s_setreg_imm32_b32" {
				i.Literal = d.next()
			}
			return
		}
		d.op(SOP2, field(w, 29, 23))
		i.Dst, i.Src = dst, [3]Reg{src0, src1}
		if i.Op.takesLiteral() {
			i.Literal = d.next()
		} else {
			d.literals(src0, src1)
		}
	}
}

// takesLiteral reports whether the instruction is a multiply-add that always has a literal.
func (op *Op) takesLiteral() bool {
	switch op.Name {
	case "v_fmaak_f32", "v_fmamk_f32", "v_fmaak_f16", "v_fmamk_f16", "s_fmaak_f32", "s_fmamk_f32",
		"v_dual_fmaak_f32", "v_dual_fmamk_f32":
		return true
	}
	return false
}

func (d *decoder) vop12c(w uint32) {
	i := &d.inst
	i.Src = [3]Reg{Reg(field(w, 8, 0)), VGPR0 + Reg(field(w, 16, 9))}
	i.Dst = VGPR0 + Reg(field(w, 24, 17))
	switch field(w, 31, 25) {
	case 0b0111111:
		d.op(VOP1, field(w, 16, 9))
		i.Src[1] = 0
		if i.Op.Name == "v_readfirstlane_b32" {
			i.Dst -= VGPR0
		}
	case 0b0111110:
		d.op(VOPC, field(w, 24, 17))
		i.Dst = VCCLo
		if i.Op.isCmpX() {
			i.Dst = ExecLo
		}
	default:
		d.op(VOP2, field(w, 30, 25))
	}
	if i.Op.takesLiteral() {
		i.Literal = d.next()
		return
	}
	d.dpp()
	d.literals(i.Src[0])
}

// isCmpX reports whether the instruction is a comparison that writes EXEC.
func (op *Op) isCmpX() bool { return op.Format == VOPC && op.Code >= 128 }

// dpp reads the word that says which lane the first source comes from.
func (d *decoder) dpp() {
	i := &d.inst
	switch i.Src[0] {
	case dpp16:
		w := d.next()
		i.DPP = DPP{
			Kind: dpp16, Control: field(w, 16, 8), FetchInact: bit(w, 18), BoundZero: bit(w, 19),
			BankMask: uint8(field(w, 27, 24)), RowMask: uint8(field(w, 31, 28)),
		}
		if i.Format == VOP1 || i.Format == VOP2 || i.Format == VOPC {
			i.Neg = uint8(field(w, 20, 20) | field(w, 22, 22)<<1)
			i.Abs = uint8(field(w, 21, 21) | field(w, 23, 23)<<1)
		}
		i.Src[0] = VGPR0 + Reg(field(w, 7, 0))
	case dpp8, dpp8FI:
		w := d.next()
		i.DPP = DPP{Kind: dpp8, Control: field(w, 31, 8), FetchInact: i.Src[0] == dpp8FI, RowMask: 0xf, BankMask: 0xf}
		i.Src[0] = VGPR0 + Reg(field(w, 7, 0))
	}
}

func (d *decoder) long(w uint32) {
	w1 := d.next()
	switch {
	case w>>24 == 0b11001100:
		d.vop3p(w, w1)
	case w>>26 == 0b110101:
		d.vop3(w, w1)
	case w>>26 == 0b110010:
		d.vopd(w, w1)
	case w>>26 == 0b110110:
		d.ds(w, w1)
	case w>>26 == 0b110111:
		d.flat(w, w1)
	case w>>26 == 0b111000:
		d.mubuf(w, w1)
	case w>>26 == 0b111101:
		d.smem(w, w1)
	default:
		d.err = &UnknownError{w}
	}
}

// threeSources sets the sources of a VOP3 encoding.
func (d *decoder) threeSources(w1 uint32) {
	i := &d.inst
	i.Src = [3]Reg{Reg(field(w1, 8, 0)), Reg(field(w1, 17, 9)), Reg(field(w1, 26, 18))}
	i.Omod, i.Neg = uint8(field(w1, 28, 27)), uint8(field(w1, 31, 29))
}

// longTail reads what may follow a VOP3 encoding.
func (d *decoder) longTail() {
	d.dpp()
	d.literals(d.inst.Src[:d.inst.NSrc]...)
}

func (d *decoder) vop3(w, w1 uint32) {
	i := &d.inst
	code := field(w, 25, 16)
	if sd := table[VOP3SD][uint16(code)]; sd != nil {
		if op := d.op(VOP3SD, code); op.Format == VOP2 {
			i.NSrc = 3 // the carry
		}
		i.SDst = Reg(field(w, 14, 8))
	} else {
		op := d.op(VOP3, code)
		i.Abs, i.OpSel = uint8(field(w, 10, 8)), uint8(field(w, 14, 11))
		if op.Name == "v_cndmask_b32" {
			i.NSrc = 3
		}
	}
	i.Clamp = bit(w, 15)
	i.Dst = VGPR0 + Reg(field(w, 7, 0))
	if i.Op.Format == VOPC || i.Op.Name == "v_readlane_b32" || i.Op.Name == "v_readfirstlane_b32" {
		i.Dst -= VGPR0
	}
	d.threeSources(w1)
	d.longTail()
}

func (d *decoder) vop3p(w, w1 uint32) {
	i := &d.inst
	d.op(VOP3P, field(w, 22, 16))
	i.Dst = VGPR0 + Reg(field(w, 7, 0))
	i.NegHi, i.OpSel = uint8(field(w, 10, 8)), uint8(field(w, 13, 11))
	i.Clamp = bit(w, 15)
	d.threeSources(w1)
	i.OpSelHi, i.Omod = i.Omod|uint8(field(w, 14, 14))<<2, 0
	d.longTail()
}

func (d *decoder) vopd(w, w1 uint32) {
	i := &d.inst
	y := &Inst{Format: VOPD, Op: table[VOPD][uint16(field(w, 21, 17))]}
	d.op(VOPD, field(w, 25, 22))
	if y.Op == nil {
		d.err = &UnknownError{w}
		return
	}
	y.NSrc = len(y.Op.Src)
	i.Y = y
	i.Src = [3]Reg{Reg(field(w, 8, 0)), VGPR0 + Reg(field(w, 16, 9))}
	y.Src = [3]Reg{Reg(field(w1, 8, 0)), VGPR0 + Reg(field(w1, 16, 9))}
	i.Dst = VGPR0 + Reg(field(w1, 31, 24))
	// The halves write to banks of different parity.
	y.Dst = VGPR0 + Reg(field(w1, 23, 17))<<1 | (i.Dst&1 ^ 1)
	if i.Op.takesLiteral() || y.Op.takesLiteral() {
		i.Literal = d.next()
	} else {
		d.literals(i.Src[0], y.Src[0])
	}
	y.Literal = i.Literal
}

func (d *decoder) ds(w, w1 uint32) {
	i := &d.inst
	d.op(DS, field(w, 25, 18))
	i.Offset0, i.Offset1, i.GDS = uint8(field(w, 7, 0)), uint8(field(w, 15, 8)), bit(w, 17)
	i.Imm = int32(field(w, 15, 0))
	i.Addr, i.Data, i.Data1 = VGPR0+Reg(field(w1, 7, 0)), VGPR0+Reg(field(w1, 15, 8)), VGPR0+Reg(field(w1, 23, 16))
	i.Dst = VGPR0 + Reg(field(w1, 31, 24))
}

func (d *decoder) flat(w, w1 uint32) {
	i := &d.inst
	f := [4]Format{FLAT, SCRATCH, GLOBAL, formats}[field(w, 17, 16)]
	if f == formats {
		d.err = &UnknownError{w}
		return
	}
	d.op(f, field(w, 24, 18))
	i.Imm = int32(field(w, 12, 0)<<19) >> 19
	i.DLC, i.GLC, i.SLC = bit(w, 13), bit(w, 14), bit(w, 15)
	i.Addr, i.Data, i.Dst = VGPR0+Reg(field(w1, 7, 0)), VGPR0+Reg(field(w1, 15, 8)), VGPR0+Reg(field(w1, 31, 24))
	i.SAddr, i.SVE = Reg(field(w1, 22, 16)), bit(w1, 23)
}

func (d *decoder) mubuf(w, w1 uint32) {
	i := &d.inst
	d.op(MUBUF, field(w, 25, 18))
	i.Imm = int32(field(w, 11, 0))
	i.SLC, i.DLC, i.GLC = bit(w, 12), bit(w, 13), bit(w, 14)
	i.Addr, i.Data = VGPR0+Reg(field(w1, 7, 0)), VGPR0+Reg(field(w1, 15, 8))
	i.Dst = i.Data
	i.SBase = Reg(field(w1, 20, 16)) << 2
	i.TFE, i.Offen, i.Idxen = bit(w1, 21), bit(w1, 22), bit(w1, 23)
	i.SAddr = Reg(field(w1, 31, 24))
}

func (d *decoder) smem(w, w1 uint32) {
	i := &d.inst
	d.op(SMEM, field(w, 25, 18))
	i.SBase, i.Dst = Reg(field(w, 5, 0))<<1, Reg(field(w, 12, 6))
	i.DLC, i.GLC = bit(w, 13), bit(w, 14)
	i.Imm = int32(field(w1, 20, 0)<<11) >> 11
	i.SAddr = Reg(field(w1, 31, 25))
}
