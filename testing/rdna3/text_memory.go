package rdna3

import (
	"fmt"
	"strings"
)

// cacheModifiers returns the cache policy of a memory instruction.
func (i *Inst) cacheModifiers() (mods []string) {
	for _, m := range []struct {
		set  bool
		text string
	}{{i.GLC, " glc"}, {i.SLC, " slc"}, {i.DLC, " dlc"}, {i.TFE, " tfe"}} {
		if m.set {
			mods = append(mods, m.text)
		}
	}
	return mods
}

func (i *Inst) smemOperands() (args, mods []string) {
	if len(i.Op.Src) == 0 && i.Op.Dst == nil {
		return nil, nil
	}
	base := 2
	if strings.HasPrefix(i.Op.Name, "s_buffer_") {
		base = 4
	}
	args = []string{regText(i.Dst, i.Op.Dst.Registers()), regText(i.SBase, base)}
	switch {
	case i.SAddr == Null && i.Imm != 0:
		args = append(args, signedHex(i.Imm))
	case i.Imm != 0:
		args = append(args, regText(i.SAddr, 1))
		mods = append(mods, " offset:"+signedHex(i.Imm))
	default:
		args = append(args, regText(i.SAddr, 1))
	}
	return args, append(mods, i.cacheModifiers()...)
}

func signedHex(n int32) string {
	if n < 0 {
		return fmt.Sprintf("-%#x", -int64(n))
	}
	return fmt.Sprintf("%#x", n)
}

func (i *Inst) dsOperands() (args, mods []string) {
	if i.Op.Dst != nil {
		args = append(args, regText(i.Dst, i.Op.Dst.Registers()))
	}
	// ds_load_addtid and its kind have no address.
	regs := []Reg{i.Addr, i.Data, i.Data1}
	if strings.Contains(i.Op.Name, "addtid") {
		regs = regs[1:]
	}
	for n, k := range i.Op.Src {
		args = append(args, regText(regs[n], k.Registers()))
	}
	switch {
	case strings.Contains(i.Op.Name, "2addr"):
		if i.Offset0 != 0 {
			mods = append(mods, fmt.Sprintf(" offset0:%d", i.Offset0))
		}
		if i.Offset1 != 0 {
			mods = append(mods, fmt.Sprintf(" offset1:%d", i.Offset1))
		}
	case i.Imm != 0 && i.Op.Name == "ds_swizzle_b32":
		mods = append(mods, " offset:"+swizzleText(uint32(i.Imm)))
	case i.Imm != 0:
		mods = append(mods, fmt.Sprintf(" offset:%d", i.Imm))
	}
	if i.GDS {
		mods = append(mods, " gds")
	}
	return args, mods
}

// swizzleText returns the pattern of ds_swizzle_b32.
func swizzleText(n uint32) string {
	if bit(n, 15) {
		return fmt.Sprintf("swizzle(QUAD_PERM,%d,%d,%d,%d)", n&3, n>>2&3, n>>4&3, n>>6&3)
	}
	and, or, xor := field(n, 4, 0), field(n, 9, 5), field(n, 14, 10)
	switch {
	case and == 0x1f && or == 0 && xor&(xor+1) == 0 && xor != 0 && xor != 1:
		return fmt.Sprintf("swizzle(REVERSE,%d)", xor+1)
	case and == 0x1f && or == 0 && xor != 0 && xor&(xor-1) == 0:
		return fmt.Sprintf("swizzle(SWAP,%d)", xor)
	}
	var mask strings.Builder
	for b := 4; b >= 0; b-- {
		a, o, x := bit(and, b), bit(or, b), bit(xor, b)
		switch {
		case !a && !o && !x:
			mask.WriteByte('0')
		case !a && (o != x):
			mask.WriteByte('1')
		case a && !o && !x:
			mask.WriteByte('p')
		default:
			mask.WriteByte('i')
		}
	}
	return fmt.Sprintf("swizzle(BITMASK_PERM,%q)", mask.String())
}

// returns reports whether an atomic instruction returns the value from before.
func (i *Inst) returns() bool {
	return i.Op.Dst != nil && (i.GLC || !strings.Contains(i.Op.Name, "_atomic_"))
}

func (i *Inst) flatOperands() (args, mods []string) {
	if i.returns() {
		n := i.Op.Dst.Registers()
		if strings.Contains(i.Op.Name, "cmpswap") {
			n = i.Op.Src[1].Registers() / 2
		}
		args = append(args, regText(i.Dst, n))
	}
	// A scalar base leaves 32 bits for the vector address.
	addr := regText(i.Addr, 2)
	switch {
	case i.Format == SCRATCH && !i.SVE:
		addr = "off"
	case i.Format == SCRATCH, i.Format == GLOBAL && i.SAddr != Null:
		addr = regText(i.Addr, 1)
	}
	args = append(args, addr)
	if len(i.Op.Src) > 1 {
		args = append(args, regText(i.Data, i.Op.Src[1].Registers()))
	}
	switch {
	case i.Format == FLAT:
	case i.SAddr == Null:
		args = append(args, "off")
	case i.Format == GLOBAL:
		args = append(args, regText(i.SAddr, 2))
	default:
		args = append(args, regText(i.SAddr, 1))
	}
	if i.Imm != 0 {
		mods = append(mods, fmt.Sprintf(" offset:%d", i.Imm))
	}
	return args, append(mods, i.cacheModifiers()...)
}

func (i *Inst) mubufOperands() (args, mods []string) {
	if len(i.Op.Src) == 0 {
		return nil, nil
	}
	addr := "off"
	switch {
	case i.Offen && i.Idxen:
		addr = regText(i.Addr, 2)
	case i.Offen || i.Idxen:
		addr = regText(i.Addr, 1)
	}
	args = []string{
		regText(i.Data, i.Op.Src[0].Registers()), addr, regText(i.SBase, 4), regText(i.SAddr, 1),
	}
	if i.Idxen {
		mods = append(mods, " idxen")
	}
	if i.Offen {
		mods = append(mods, " offen")
	}
	if i.Imm != 0 {
		mods = append(mods, fmt.Sprintf(" offset:%d", i.Imm))
	}
	return args, append(mods, i.cacheModifiers()...)
}
