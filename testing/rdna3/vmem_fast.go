package rdna3

import (
	"math/bits"
	"unsafe"
)

// A transfer is a load or store that is ready to run: all addresses first, then the lanes. Its plain form in vmem.go
// runs lane by lane; TestFastMemory compares the two.
type transfer struct {
	access
	n       int // bytes of a lane
	data    int // the first vector register of the data
	addr    int // the vector register of the address
	base    int // the scalar register that is added, or -1
	offset  uint64
	format  Format
	wide    bool // the address has 64 bits in vector registers
	scratch bool // an address register of scratch is used
}

// A window is memory that the lanes of one instruction access.
type window struct {
	base, size uint64
	data       unsafe.Pointer
}

func windowOf(base uint64, b []byte) window {
	return window{base, uint64(len(b)), unsafe.Pointer(unsafe.SliceData(b))}
}

// accelerateMemory gives a step its fast form, if it has one.
func (s *step) accelerateMemory(a *access) {
	i := s.inst
	if a.atomic != nil {
		return
	}
	t := &transfer{access: *a, n: a.bytes * a.dwords, data: int(i.Dst - VGPR0), addr: int(i.Addr - VGPR0), base: -1, format: i.Format}
	if a.store {
		t.data = int(i.Data - VGPR0)
	}
	t.offset = uint64(int64(i.Imm))
	switch i.Format {
	case GLOBAL:
		if i.SAddr != Null {
			t.base = int(i.SAddr)
		}
		t.wide = i.SAddr == Null
	case FLAT:
		t.wide = true
	case SCRATCH:
		t.scratch = i.SVE
		if i.SAddr != Null {
			t.base = int(i.SAddr)
		}
	case DS:
		t.offset = uint64(uint32(i.Imm))
	}
	last := max(t.data+a.dwords, t.addr+1)
	if t.wide || i.Format == MUBUF && i.Idxen && i.Offen {
		last = max(last, t.addr+2)
	}
	if last > vgprs || t.base >= int(ExecHi) {
		return
	}
	s.transfer, s.plain, s.run = t, s.run, runTransfer
}

// runTransfer runs a load or store of all active lanes.
func runTransfer(w *Wave, s *step) {
	t := s.transfer
	active := w.exec()
	if active == 0 {
		return
	}
	var m window
	switch t.format {
	case DS:
		m = windowOf(0, w.group.lds)
		for l, x := range w.regN(t.addr) {
			w.addr[l] = uint64(x + uint32(t.offset))
		}
	case SCRATCH:
		if !w.scratchAddresses(t, active) {
			s.plain(w, s) // which panics with the address
			return
		}
		m = windowOf(0, w.scratch)
	case MUBUF:
		found := w.bufferAddresses(s.inst, t, active)
		if !t.store {
			w.clearLanes(t, active&^found)
		}
		if active = found; active == 0 {
			return
		}
		m = w.globalWindow(s, w.addr[bits.TrailingZeros64(active)], t.n)
	default:
		if !w.globalAddresses(t) {
			s.plain(w, s) // an address in LDS or scratch
			return
		}
		m = w.globalWindow(s, w.addr[bits.TrailingZeros64(active)], t.n)
	}
	for m.move(w, t, &active); active != 0; m.move(w, t, &active) {
		addr := w.addr[bits.TrailingZeros64(active)]
		if t.format == DS {
			panic(&MemoryError{Addr: SharedAperture + addr, Size: t.n})
		}
		m = w.globalWindow(s, addr, t.n)
	}
}

// globalWindow returns the region of an address.
func (w *Wave) globalWindow(s *step, addr uint64, n int) window {
	r := w.region(s.slot, addr, n)
	return windowOf(r.Base, r.Data)
}

// regN returns the lanes of a vector register by its number.
func (w *Wave) regN(n int) []uint32 {
	at := n * w.lanes
	return w.v[at : at+w.lanes : at+w.lanes]
}

// globalAddresses computes the addresses of all lanes. It reports whether none is in LDS or scratch.
func (w *Wave) globalAddresses(t *transfer) bool {
	low := w.regN(t.addr)
	if !t.wide {
		base := (uint64(w.s[t.base]) | uint64(w.s[t.base+1])<<32) + t.offset
		for l, x := range low {
			w.addr[l&63] = base + uint64(x)
		}
		return true
	}
	high := w.regN(t.addr + 1)[:len(low)]
	var apertures uint64
	for l, x := range low {
		a := (uint64(x) | uint64(high[l])<<32) + t.offset
		w.addr[l&63] = a
		if h := a >> 48; h == SharedAperture>>48 || h == PrivateAperture>>48 {
			apertures |= 1
		}
	}
	return t.format != FLAT || apertures == 0
}

// scratchAddresses computes where in the wave's scratch the lanes access. It reports whether all active ones may.
func (w *Wave) scratchAddresses(t *transfer, active uint64) bool {
	base := int64(t.offset)
	if t.base >= 0 {
		base += int64(w.s[t.base])
	}
	regs := w.regN(t.addr)
	for m := active; m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		at := base
		if t.scratch {
			at += int64(regs[l])
		}
		if at < 0 || at+int64(t.n) > int64(w.scratchSize) {
			return false
		}
		w.addr[l] = uint64(l*w.scratchSize) + uint64(at)
	}
	return true
}

// bufferAddresses computes the addresses in a buffer, and returns the lanes that are in its range.
func (w *Wave) bufferAddresses(i *Inst, t *transfer, active uint64) (found uint64) {
	soffset := uint64(uint32(w.scalar(i, i.SAddr, Kind{Letters: "b", Bits: 32, Count: 1})))
	b := w.descriptor(i.SBase)
	indices, offsets := w.regN(t.addr), w.regN(t.addr)
	if i.Idxen && i.Offen {
		offsets = w.regN(t.addr + 1)
	}
	for m := active; m != 0; m &= m - 1 {
		l := bits.TrailingZeros64(m)
		var index uint64
		offset := t.offset
		if i.Idxen {
			index = uint64(indices[l])
		}
		if i.Offen {
			offset += uint64(offsets[l])
		}
		if b.covers(index, offset, soffset, t.n) {
			found |= 1 << l
			w.addr[l] = b.base + soffset + offset + index*b.stride
		}
	}
	return found
}

// clearLanes loads zeros, for lanes that are out of a buffer's range.
func (w *Wave) clearLanes(t *transfer, lanes uint64) {
	var zeros [16]byte
	for m := lanes; m != 0; m &= m - 1 {
		w.loadLane(Reg(t.data)+VGPR0, &t.access, bits.TrailingZeros64(m), zeros[:t.n])
	}
}

// move transfers the active lanes up to the first one that is outside, and removes them from active.
func (m *window) move(w *Wave, t *transfer, active *uint64) {
	if m.size < uint64(t.n) {
		return
	}
	limit := m.size - uint64(t.n)
	switch {
	case t.bytes == 4 && t.store:
		m.storeWords(w, t, active, limit)
	case t.bytes == 4:
		m.loadWords(w, t, active, limit)
	case t.store:
		m.storeShort(w, t, active, limit)
	default:
		m.loadShort(w, t, active, limit)
	}
}

func (m *window) loadWords(w *Wave, t *transfer, active *uint64, limit uint64) {
	lanes := w.lanes
	d := w.v[t.data*lanes : (t.data+t.dwords)*lanes]
	for ; *active != 0; *active &= *active - 1 {
		l := bits.TrailingZeros64(*active)
		off := w.addr[l] - m.base
		if off > limit {
			return
		}
		p := unsafe.Add(m.data, off)
		switch t.dwords {
		case 1:
			d[l] = *(*uint32)(p)
		case 2:
			x := *(*uint64)(p)
			d[l], d[l+lanes] = uint32(x), uint32(x>>32)
		case 4:
			x, y := *(*uint64)(p), *(*uint64)(unsafe.Add(p, 8))
			d[l+3*lanes] = uint32(y >> 32)
			d[l], d[l+lanes], d[l+2*lanes] = uint32(x), uint32(x>>32), uint32(y)
		default:
			for n := range t.dwords {
				d[l+n*lanes] = *(*uint32)(unsafe.Add(p, 4*n))
			}
		}
	}
}

func (m *window) storeWords(w *Wave, t *transfer, active *uint64, limit uint64) {
	lanes := w.lanes
	d := w.v[t.data*lanes : (t.data+t.dwords)*lanes]
	for ; *active != 0; *active &= *active - 1 {
		l := bits.TrailingZeros64(*active)
		off := w.addr[l] - m.base
		if off > limit {
			return
		}
		p := unsafe.Add(m.data, off)
		switch t.dwords {
		case 1:
			*(*uint32)(p) = d[l]
		case 2:
			*(*uint64)(p) = uint64(d[l]) | uint64(d[l+lanes])<<32
		default:
			for n := range t.dwords {
				*(*uint32)(unsafe.Add(p, 4*n)) = d[l+n*lanes]
			}
		}
	}
}

func (m *window) loadShort(w *Wave, t *transfer, active *uint64, limit uint64) {
	d := w.regN(t.data)
	for ; *active != 0; *active &= *active - 1 {
		l := bits.TrailingZeros64(*active)
		off := w.addr[l] - m.base
		if off > limit {
			return
		}
		p := unsafe.Add(m.data, off)
		var x uint32
		switch {
		case t.bytes == 1 && t.signed:
			x = uint32(int32(*(*int8)(p)))
		case t.bytes == 1:
			x = uint32(*(*uint8)(p))
		case t.signed:
			x = uint32(int32(*(*int16)(p)))
		default:
			x = uint32(*(*uint16)(p))
		}
		switch t.half {
		case 1:
			d[l] = d[l]&0xffff0000 | x&0xffff
		case 2:
			d[l] = d[l]&0xffff | x<<16
		default:
			d[l] = x
		}
	}
}

func (m *window) storeShort(w *Wave, t *transfer, active *uint64, limit uint64) {
	d := w.regN(t.data)
	for ; *active != 0; *active &= *active - 1 {
		l := bits.TrailingZeros64(*active)
		off := w.addr[l] - m.base
		if off > limit {
			return
		}
		p, x := unsafe.Add(m.data, off), d[l]
		if t.half == 2 {
			x >>= 16
		}
		if t.bytes == 1 {
			*(*uint8)(p) = uint8(x)
		} else {
			*(*uint16)(p) = uint16(x)
		}
	}
}
