package rdna3

import (
	"math/bits"
	"strconv"
	"strings"
)

// An access says what a memory instruction reads or writes.
type access struct {
	bytes   int  // of one number
	dwords  int  // registers, for numbers of 32 bits
	signed  bool // a short number is extended by its sign
	half    int  // 1 for the lower half of a register, 2 for the upper, 0 for all of it
	store   bool
	atomic  atomicFunc
	compare bool // the atomic has a second number in the registers after
}

// accessOf returns the access of an instruction by its name, or nil: global_load_d16_hi_u8, ds_store_b64.
func accessOf(name string) *access {
	_, rest, _ := strings.Cut(name, "_")
	if what, ok := strings.CutPrefix(rest, "atomic_"); ok {
		return atomicAccess(what)
	}
	a := &access{}
	switch {
	case strings.HasPrefix(rest, "load_"):
		rest = rest[len("load_"):]
	case strings.HasPrefix(rest, "store_"):
		a.store, rest = true, rest[len("store_"):]
	default:
		return nil
	}
	switch {
	case strings.Contains(rest, "d16_hi"), strings.HasSuffix(rest, "_d16_hi"):
		a.half = 2
	case strings.Contains(rest, "d16"):
		a.half = 1
	}
	for _, affix := range []string{"d16_hi_", "d16_"} {
		rest = strings.TrimPrefix(rest, affix)
	}
	for _, affix := range []string{"_d16_hi", "_d16"} {
		rest = strings.TrimSuffix(rest, affix)
	}
	width, err := strconv.Atoi(strings.TrimLeft(rest, "bui"))
	if err != nil || len(strings.TrimRight(rest, "0123456789")) != 1 {
		return nil
	}
	a.signed = rest[0] == 'i'
	a.bytes, a.dwords = min(width/8, 4), max(1, width/32)
	return a
}

// prepareMemory returns the step of a memory instruction, or nil.
func prepareMemory(i *Inst) *step {
	name := i.Op.Name
	switch {
	case name == "buffer_gl0_inv", name == "buffer_gl1_inv":
		return &step{inst: i, run: func(*Wave, *step) {}}
	case i.Format == SMEM:
		return prepareSMEM(i)
	case i.Format == DS && lds[name] != nil:
		return &step{inst: i, run: lds[name]}
	case i.Format == DS && strings.Contains(name, "2addr"):
		return prepareTwo(i)
	}
	a := accessOf(name)
	if i.Format == DS {
		if a = ldsAccess(name); a == nil {
			return nil
		}
	}
	if a == nil || i.TFE || i.GDS {
		return nil
	}
	s := &step{inst: i, run: func(w *Wave, s *step) { w.memory(s.inst, a) }}
	s.accelerateMemory(a)
	return s
}

// memory runs an access of each active lane.
func (w *Wave) memory(i *Inst, a *access) {
	n := a.bytes * a.dwords
	for m := w.exec(); m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		b, ok := w.locate(i, l, n)
		switch {
		case a.atomic != nil:
			if ok {
				w.runAtomic(i, a, l, b)
			}
		case a.store:
			if ok {
				w.storeLane(i.Data, a, l, b)
			}
		case ok:
			w.loadLane(i.Dst, a, l, b)
		default:
			w.loadLane(i.Dst, a, l, make([]byte, n)) // out of a buffer's range
		}
	}
}

// locate returns the n bytes that a lane accesses, or false if a buffer has them not.
func (w *Wave) locate(i *Inst, lane, n int) ([]byte, bool) {
	switch i.Format {
	case DS:
		at := w.reg(i.Addr)[lane] + uint32(i.Imm)
		w.located = uint64(at)
		return w.ldsBytes(at, n), true
	case SCRATCH:
		at := int64(i.Imm)
		if i.SVE {
			at += int64(w.reg(i.Addr)[lane])
		}
		if i.SAddr != Null {
			at += int64(w.s[i.SAddr])
		}
		w.located = uint64(at)
		return w.scratchBytes(at, lane, n), true
	case MUBUF:
		return w.buffer(i, lane, n)
	}
	addr := uint64(w.reg(i.Addr)[lane])
	if i.Format == GLOBAL && i.SAddr != Null {
		addr += uint64(w.s[i.SAddr]) | uint64(w.s[i.SAddr+1])<<32
	} else {
		addr |= uint64(w.reg(i.Addr + 1)[lane]) << 32
	}
	addr += uint64(int64(i.Imm))
	w.located = addr
	if i.Format == FLAT {
		return w.flat(addr, lane, n), true
	}
	return w.bytes(addr, n), true
}

// buffer returns the bytes of a buffer that its descriptor in scalar registers describes.
func (w *Wave) buffer(i *Inst, lane, n int) ([]byte, bool) {
	b := w.descriptor(i.SBase)
	regs := w.reg(i.Addr)
	var index, offset uint64
	if i.Idxen {
		index = uint64(regs[lane])
		regs = w.reg(i.Addr + 1)
	}
	if i.Offen {
		offset = uint64(regs[lane])
	}
	offset += uint64(i.Imm)
	soffset := uint64(uint32(w.scalar(i, i.SAddr, Kind{Letters: "b", Bits: 32, Count: 1})))
	if !b.covers(index, offset, soffset, n) {
		return nil, false
	}
	w.located = b.base + soffset + offset + index*b.stride
	return w.bytes(w.located, n), true
}

// A bufferDescriptor is what four scalar registers say of a buffer.
type bufferDescriptor struct {
	base, stride, records uint64
	check                 uint32 // OOB_SELECT: how the range is checked
}

func (w *Wave) descriptor(r Reg) bufferDescriptor {
	d := w.s[r : r+4]
	return bufferDescriptor{uint64(d[0]) | uint64(d[1]&0xffff)<<32, uint64(d[1] >> 16 & 0x3fff), uint64(d[2]), d[3] >> 28 & 3}
}

// covers reports whether the range of the buffer has n bytes at an offset. The scalar offset counts for raw buffers:
// Tensile's kernels step through rows with it, past the last one.
func (b bufferDescriptor) covers(index, offset, soffset uint64, n int) bool {
	switch b.check {
	case 0: // structured
		return index < b.records && (b.stride == 0 || offset < b.stride)
	case 1:
		return index < b.records
	case 2:
		return b.records != 0
	}
	return offset+soffset+uint64(n) <= b.records // raw
}

func (w *Wave) loadLane(dst Reg, a *access, lane int, b []byte) {
	if a.bytes == 4 {
		for n := range a.dwords {
			w.reg(dst + Reg(n))[lane] = load32(b[4*n:])
		}
		return
	}
	x := loadN(b)
	if a.signed {
		x = uint64(sext(x, 8*a.bytes))
	}
	d := &w.reg(dst)[lane]
	switch a.half {
	case 1:
		*d = *d&0xffff0000 | uint32(x)&0xffff
	case 2:
		*d = *d&0xffff | uint32(x)<<16
	default:
		*d = uint32(x)
	}
}

func (w *Wave) storeLane(src Reg, a *access, lane int, b []byte) {
	if a.bytes == 4 {
		for n := range a.dwords {
			store32(b[4*n:], w.reg(src + Reg(n))[lane])
		}
		return
	}
	x := w.reg(src)[lane]
	if a.half == 2 {
		x >>= 16
	}
	storeN(b, uint64(x))
}

// prepareSMEM returns the step of a scalar load.
func prepareSMEM(i *Inst) *step {
	if control[i.Op.Name] != nil {
		return &step{inst: i, run: control[i.Op.Name]}
	}
	if i.Op.Dst == nil || !strings.Contains(i.Op.Name, "load_b") {
		return nil
	}
	n := i.Op.Dst.Registers()
	isBuffer := strings.HasPrefix(i.Op.Name, "s_buffer_")
	return &step{inst: i, run: func(w *Wave, s *step) {
		i := s.inst
		base := uint64(w.s[i.SBase]) | uint64(w.s[i.SBase+1])<<32
		offset := uint64(int64(i.Imm))
		if i.SAddr != Null {
			offset += uint64(w.s[i.SAddr])
		}
		if isBuffer {
			base &= 1<<48 - 1
		}
		addr := (base + offset) &^ 3
		if !isBuffer && i.Dst < Null {
			if m := w.seek(s.slot, addr, 4*n); m != nil {
				from := m.Data[addr-m.Base:]
				for r := range n {
					w.s[int(i.Dst)+r] = load32(from[4*r:])
				}
				return
			}
		}
		for r := range n {
			if isBuffer && offset+uint64(4*r+4) > w.records(i) {
				w.setS(i.Dst+Reg(r), 0)
				continue
			}
			w.setS(i.Dst+Reg(r), load32(w.bytes(addr+uint64(4*r), 4)))
		}
	}}
}

// records returns the size of the buffer of a scalar load in bytes.
func (w *Wave) records(i *Inst) uint64 {
	stride := uint64(w.s[i.SBase+1] >> 16 & 0x3fff)
	return uint64(w.s[i.SBase+2]) * max(stride, 1)
}
