package rdna3

import (
	"fmt"
	"strings"
)

// Names that LLVM has for immediate operands.
var (
	delays = map[uint32]string{
		1: "VALU_DEP_1", 2: "VALU_DEP_2", 3: "VALU_DEP_3", 4: "VALU_DEP_4", 5: "TRANS32_DEP_1", 6: "TRANS32_DEP_2",
		7: "TRANS32_DEP_3", 8: "FMA_ACCUM_CYCLE_1", 9: "SALU_CYCLE_1", 10: "SALU_CYCLE_2", 11: "SALU_CYCLE_3",
	}
	skips       = map[uint32]string{0: "SAME", 1: "NEXT", 2: "SKIP_1", 3: "SKIP_2", 4: "SKIP_3", 5: "SKIP_4"}
	messages    = map[uint32]string{1: "MSG_INTERRUPT", 2: "MSG_HS_TESSFACTOR", 3: "MSG_DEALLOC_VGPRS"}
	rtnMessages = map[uint32]string{
		128: "MSG_RTN_GET_DOORBELL", 129: "MSG_RTN_GET_DDID", 130: "MSG_RTN_GET_TMA", 131: "MSG_RTN_GET_REALTIME",
		132: "MSG_RTN_SAVE_WAVE", 133: "MSG_RTN_GET_TBA",
	}
	hardwareRegs = map[uint32]string{
		1: "HW_REG_MODE", 2: "HW_REG_STATUS", 3: "HW_REG_TRAPSTS", 5: "HW_REG_GPR_ALLOC", 6: "HW_REG_LDS_ALLOC",
		7: "HW_REG_IB_STS", 15: "HW_REG_SH_MEM_BASES", 20: "HW_REG_FLAT_SCR_LO", 21: "HW_REG_FLAT_SCR_HI",
		23: "HW_REG_HW_ID1", 24: "HW_REG_HW_ID2", 29: "HW_REG_SHADER_CYCLES",
	}
)

func (i *Inst) soppOperands() []string {
	if len(i.Op.Src) == 0 {
		return nil
	}
	n := uint32(uint16(i.Imm))
	switch i.Op.Name {
	case "s_waitcnt":
		return []string{waitText(n)}
	case "s_waitcnt_depctr":
		return []string{depctrText(n)}
	case "s_delay_alu":
		return []string{delayText(n)}
	case "s_sendmsg", "s_sendmsghalt":
		return []string{"sendmsg(" + name(messages, n) + ")"}
	case "s_nop", "s_sleep", "s_setprio", "s_trap", "s_setkill", "s_sethalt":
		return []string{fmt.Sprint(n)}
	}
	if i.Op.Src[0].Letters == "label" {
		return []string{fmt.Sprint(n)}
	}
	return []string{fmt.Sprintf("%#x", n)}
}

// counter returns name(n) unless n is the largest number of the field, which waits for nothing.
func counter(name string, n, most uint32) []string {
	if n == most {
		return nil
	}
	return []string{fmt.Sprintf("%s(%d)", name, n)}
}

func waitText(n uint32) string {
	vm, exp, lgkm := field(n, 15, 10), field(n, 2, 0), field(n, 9, 4)
	parts := append(append(counter("vmcnt", vm, 63), counter("expcnt", exp, 7)...), counter("lgkmcnt", lgkm, 63)...)
	if len(parts) == 0 {
		return "vmcnt(63) expcnt(7) lgkmcnt(63)"
	}
	return strings.Join(parts, " ")
}

// depctrText returns the counters of s_waitcnt_depctr, or the number if bits without a meaning are not as usual.
func depctrText(n uint32) string {
	const unused = 0x0060
	if n&unused != 0 {
		return fmt.Sprintf("%#x", n)
	}
	var parts []string
	for _, f := range []struct {
		name   string
		hi, lo int
	}{
		{"depctr_va_vdst", 15, 12},
		{"depctr_va_sdst", 11, 9},
		{"depctr_va_ssrc", 8, 8},
		{"depctr_hold_cnt", 7, 7},
		{"depctr_vm_vsrc", 4, 2},
		{"depctr_va_vcc", 1, 1},
		{"depctr_sa_sdst", 0, 0},
	} {
		parts = append(parts, counter(f.name, field(n, f.hi, f.lo), field(^uint32(0), f.hi, f.lo))...)
	}
	return strings.Join(parts, " ")
}

func delayText(n uint32) string {
	var parts []string
	if id := field(n, 3, 0); id != 0 {
		parts = append(parts, "instid0("+name(delays, id)+")")
	}
	if skip := field(n, 6, 4); skip != 0 {
		parts = append(parts, "instskip("+name(skips, skip)+")")
	}
	if id := field(n, 10, 7); id != 0 {
		parts = append(parts, "instid1("+name(delays, id)+")")
	}
	if len(parts) == 0 {
		return "0"
	}
	return strings.Join(parts, " | ")
}

func (i *Inst) sopkOperands() []string {
	n := uint32(uint16(i.Imm))
	imm := fmt.Sprintf("%#x", n)
	switch i.Op.Name {
	case "s_version":
		return []string{imm}
	case "s_getreg_b32":
		return []string{regText(i.Dst, 1), hwregText(n)}
	case "s_setreg_b32":
		return []string{hwregText(n), regText(i.Dst, 1)}
	case "s_setreg_imm32_b32":
		return []string{hwregText(n), fmt.Sprintf("%#x", i.Literal)}
	case "s_call_b64":
		return []string{regText(i.Dst, 2), fmt.Sprint(n)}
	}
	return []string{regText(i.Dst, 1), imm}
}

// hwregText returns a field of a hardware register.
func hwregText(n uint32) string {
	id, offset, size := field(n, 5, 0), field(n, 10, 6), field(n, 15, 11)+1
	if offset == 0 && size == 32 {
		return "hwreg(" + name(hardwareRegs, id) + ")"
	}
	return fmt.Sprintf("hwreg(%s, %d, %d)", name(hardwareRegs, id), offset, size)
}
