package rdna3

import "time"

// control has the scalar instructions that do more than compute: branches, waits, the MODE register.
var control map[string]func(w *Wave, s *step)

func init() {
	nothing := func(*Wave, *step) {}
	control = map[string]func(w *Wave, s *step){
		"s_endpgm":         func(w *Wave, _ *step) { w.ended = true },
		"s_barrier":        func(w *Wave, _ *step) { w.waiting = true },
		"s_branch":         branch(func(*Wave) bool { return true }),
		"s_cbranch_scc0":   branch(func(w *Wave) bool { return !w.scc }),
		"s_cbranch_scc1":   branch(func(w *Wave) bool { return w.scc }),
		"s_cbranch_vccz":   branch(func(w *Wave) bool { return w.mask(VCCLo) == 0 }),
		"s_cbranch_vccnz":  branch(func(w *Wave) bool { return w.mask(VCCLo) != 0 }),
		"s_cbranch_execz":  branch(func(w *Wave) bool { return w.exec() == 0 }),
		"s_cbranch_execnz": branch(func(w *Wave) bool { return w.exec() != 0 }),
		"s_getpc_b64":      func(w *Wave, s *step) { w.setS64(s.inst.Dst, w.pc) },
		"s_setpc_b64":      func(w *Wave, s *step) { w.pc, _ = w.scalarSources(s.inst) },
		"s_swappc_b64": func(w *Wave, s *step) {
			to, _ := w.scalarSources(s.inst)
			w.setS64(s.inst.Dst, w.pc)
			w.pc = to
		},
		"s_call_b64": func(w *Wave, s *step) {
			w.setS64(s.inst.Dst, w.pc)
			w.pc += uint64(int64(s.inst.Imm) * 4)
		},
		"s_movk_i32": func(w *Wave, s *step) { w.setS(s.inst.Dst, uint32(s.inst.Imm)) },
		"s_cmovk_i32": func(w *Wave, s *step) {
			if w.scc {
				w.setS(s.inst.Dst, uint32(s.inst.Imm))
			}
		},
		"s_addk_i32": func(w *Wave, s *step) {
			sum := int64(int32(w.s[s.inst.Dst])) + int64(s.inst.Imm)
			w.scc = sum != int64(int32(sum))
			w.setS(s.inst.Dst, uint32(sum))
		},
		"s_mulk_i32":         func(w *Wave, s *step) { w.setS(s.inst.Dst, w.s[s.inst.Dst]*uint32(s.inst.Imm)) },
		"s_getreg_b32":       getReg,
		"s_setreg_b32":       func(w *Wave, s *step) { w.setReg(s.inst, w.s[s.inst.Dst]) },
		"s_setreg_imm32_b32": func(w *Wave, s *step) { w.setReg(s.inst, s.inst.Literal) },
		"s_round_mode":       func(w *Wave, s *step) { w.setMode(w.modeBits&^0xf | uint32(s.inst.Imm)&0xf) },
		"s_denorm_mode":      func(w *Wave, s *step) { w.setMode(w.modeBits&^0xf0 | uint32(s.inst.Imm)&0xf<<4) },
		"s_movrels_b32":      func(w *Wave, s *step) { w.setS(s.inst.Dst, w.s[s.inst.Src[0]+Reg(w.s[M0])]) },
		"s_movreld_b32": func(w *Wave, s *step) {
			a, _ := w.scalarSources(s.inst)
			w.setS(s.inst.Dst+Reg(w.s[M0]), uint32(a))
		},
		"s_sendmsg_rtn_b32": func(w *Wave, s *step) { w.setS(s.inst.Dst, uint32(message(s.inst))) },
		"s_sendmsg_rtn_b64": func(w *Wave, s *step) { w.setS64(s.inst.Dst, message(s.inst)) },
		"s_sethalt": func(_ *Wave, s *step) {
			if s.inst.Imm&1 != 0 {
				panic(ErrHalted)
			}
		},
		"s_trap": func(_ *Wave, s *step) { panic(&TrapError{uint8(s.inst.Imm)}) },
	}
	// A wave sees its own accesses in order, so there is nothing to wait for.
	for _, name := range []string{
		"s_nop", "s_sleep", "s_set_inst_prefetch_distance", "s_clause", "s_delay_alu", "s_waitcnt_depctr", "s_waitcnt",
		"s_wait_idle", "s_wait_event", "s_setprio", "s_sendmsg", "s_icache_inv", "s_waitcnt_vscnt", "s_waitcnt_vmcnt",
		"s_waitcnt_expcnt", "s_waitcnt_lgkmcnt", "s_version", "s_gl1_inv", "s_dcache_inv", "s_wakeup", "s_inst_prefetch",
	} {
		control[name] = nothing
	}
}

// branch returns an instruction that jumps if the condition holds.
func branch(condition func(w *Wave) bool) func(w *Wave, s *step) {
	return func(w *Wave, s *step) {
		if condition(w) {
			w.pc += uint64(int64(s.inst.Imm) * 4)
		}
	}
}

// message answers s_sendmsg_rtn: the time, or zero for what a test has not.
func message(i *Inst) uint64 {
	const realtime = 131
	if i.Src[0] == realtime {
		const tick = 10 * time.Nanosecond // 100 MHz
		return uint64(time.Now().UnixNano() / int64(tick))
	}
	return 0
}

// Numbers of hardware registers.
const (
	hwMode   = 1
	hwCycles = 29
)

func (w *Wave) hardware(id uint32) uint32 {
	switch id {
	case hwMode:
		return w.modeBits
	case hwCycles:
		return uint32(w.executed)
	}
	return 0
}

func hwField(i *Inst) (id uint32, offset int, mask uint32) {
	n := uint32(uint16(i.Imm))
	return field(n, 5, 0), int(field(n, 10, 6)), uint32(uint64(1)<<(field(n, 15, 11)+1) - 1)
}

func getReg(w *Wave, s *step) {
	id, offset, mask := hwField(s.inst)
	w.setS(s.inst.Dst, w.hardware(id)>>offset&mask)
}

func (w *Wave) setReg(i *Inst, x uint32) {
	id, offset, mask := hwField(i)
	if id == hwMode {
		w.setMode(w.modeBits&^(mask<<offset) | x&mask<<offset)
	}
}
