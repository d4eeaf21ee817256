package rdna3

import (
	"fmt"
	"strings"
)

// vectorModifiers returns what follows the operands of a VALU instruction.
func (i *Inst) vectorModifiers() (mods []string) {
	switch i.Format {
	case VOP3P:
		mods = i.packedModifiers()
	case VOP3:
		mods = i.opSelModifier()
	}
	if i.Clamp {
		mods = append(mods, " clamp")
	}
	if i.Omod != 0 {
		mods = append(mods, [4]string{"", " mul:2", " mul:4", " div:2"}[i.Omod])
	}
	return append(mods, i.DPP.modifiers()...)
}

// list returns the low n bits of set as "[0,1]".
func list(set uint8, n int) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = fmt.Sprint(set >> i & 1)
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// opSelModifier returns op_sel of VOP3, whose last bit is that of the destination.
func (i *Inst) opSelModifier() []string {
	if i.OpSel == 0 || i.Op.Name == "v_cndmask_b16" {
		return nil
	}
	if strings.HasPrefix(i.Op.Name, "v_permlane") {
		return []string{" op_sel:" + list(i.OpSel, 2)}
	}
	set := i.OpSel&(1<<i.NSrc-1) | i.OpSel>>3<<i.NSrc
	return []string{" op_sel:" + list(set, i.NSrc+1)}
}

// packedModifiers returns the modifiers of VOP3P, where op_sel_hi is set unless it says otherwise.
func (i *Inst) packedModifiers() (mods []string) {
	n := i.NSrc
	all := uint8(1<<n - 1)
	usual := all
	mix := i.Op.isMix()
	if mix {
		usual = 0
	}
	if i.OpSel&all != 0 {
		mods = append(mods, " op_sel:"+list(i.OpSel, n))
	}
	if i.OpSelHi&all != usual {
		mods = append(mods, " op_sel_hi:"+list(i.OpSelHi, n))
	}
	if mix {
		return mods
	}
	if i.Neg&all != 0 {
		mods = append(mods, " neg_lo:"+list(i.Neg, n))
	}
	if i.NegHi&all != 0 {
		mods = append(mods, " neg_hi:"+list(i.NegHi, n))
	}
	return mods
}

// Ranges of the control field of DPP.
const (
	dppQuad       = 0x100
	dppRowShl     = 0x100
	dppRowShr     = 0x110
	dppRowRor     = 0x120
	dppMirror     = 0x140
	dppHalfMirror = 0x141
	dppRowShare   = 0x150
	dppRowXmask   = 0x160
)

func (d DPP) modifiers() (mods []string) {
	switch d.Kind {
	case 0:
		return nil
	case dpp8:
		sel := make([]string, 8)
		for n := range sel {
			sel[n] = fmt.Sprint(d.Control >> (3 * n) & 7)
		}
		mods = append(mods, " dpp8:["+strings.Join(sel, ",")+"]")
	default:
		mods = append(mods, " "+d.control(), fmt.Sprintf(" row_mask:%#x", d.RowMask), fmt.Sprintf(" bank_mask:%#x", d.BankMask))
	}
	if d.BoundZero {
		mods = append(mods, " bound_ctrl:1")
	}
	if d.FetchInact {
		mods = append(mods, " fi:1")
	}
	return mods
}

func (d DPP) control() string {
	c := d.Control
	low := c & 0xf
	switch {
	case c < dppQuad:
		return fmt.Sprintf("quad_perm:[%d,%d,%d,%d]", c&3, c>>2&3, c>>4&3, c>>6&3)
	case c < dppRowShr:
		return fmt.Sprintf("row_shl:%d", low)
	case c < dppRowRor:
		return fmt.Sprintf("row_shr:%d", low)
	case c < dppMirror:
		return fmt.Sprintf("row_ror:%d", low)
	case c == dppMirror:
		return "row_mirror"
	case c == dppHalfMirror:
		return "row_half_mirror"
	case c >= dppRowXmask:
		return fmt.Sprintf("row_xmask:%d", low)
	}
	return fmt.Sprintf("row_share:%d", low)
}
