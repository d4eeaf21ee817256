package rdna3

import (
	"math/bits"
	"unsafe"
)

// A double is a load or store at two places in LDS that is ready to run.
type double struct {
	size    int // bytes at each place
	addr    int
	offset  [2]uint32
	data    [2]int // vector registers
	store   bool
	farther uint32 // the greater of the offsets
}

// accelerateTwo gives a load or store at two places its fast form.
func (s *step) accelerateTwo(size int, scale uint32) {
	i := s.inst
	t := &double{size: size, addr: int(i.Addr - VGPR0), store: i.Op.Dst == nil}
	t.offset = [2]uint32{uint32(i.Offset0) * scale, uint32(i.Offset1) * scale}
	t.farther = max(t.offset[0], t.offset[1])
	t.data = [2]int{int(i.Dst - VGPR0), int(i.Dst-VGPR0) + size/4}
	if t.store {
		t.data = [2]int{int(i.Data - VGPR0), int(i.Data1 - VGPR0)}
	}
	if max(t.data[0], t.data[1])+size/4 > vgprs {
		return
	}
	s.double, s.plain, s.run = t, s.run, runDouble
}

// runDouble runs a load or store at two places.
func runDouble(w *Wave, s *step) {
	t, lds := s.double, w.group.lds
	span := uint64(t.farther) + uint64(t.size)
	if uint64(len(lds)) < span {
		s.plain(w, s) // which panics with the address
		return
	}
	limit, active := uint64(len(lds))-span, w.exec()
	base := unsafe.Pointer(unsafe.SliceData(lds))
	for l, x := range w.regN(t.addr) {
		w.addr[l&63] = uint64(x)
	}
	for m := active; m != 0; m &= m - 1 {
		if w.addr[bits.TrailingZeros64(m)] > limit {
			s.plain(w, s) // which panics, or wraps as addresses do
			return
		}
	}
	for n, data := range t.data {
		at := unsafe.Add(base, t.offset[n])
		if t.size == 4 {
			word(w.regN(data), at, &w.addr, active, t.store)
			continue
		}
		words(w.regN(data), w.regN(data+1), at, &w.addr, active, t.store)
	}
}

// word transfers four bytes of each active lane.
func word(d []uint32, at unsafe.Pointer, addr *[64]uint64, active uint64, store bool) {
	for ; active != 0; active &= active - 1 {
		l := bits.TrailingZeros64(active)
		if p := (*uint32)(unsafe.Add(at, addr[l])); store {
			*p = d[l]
		} else {
			d[l] = *p
		}
	}
}

// words transfers eight bytes of each active lane.
func words(low, high []uint32, at unsafe.Pointer, addr *[64]uint64, active uint64, store bool) {
	for ; active != 0; active &= active - 1 {
		l := bits.TrailingZeros64(active)
		if p := (*uint64)(unsafe.Add(at, addr[l])); store {
			*p = uint64(low[l]) | uint64(high[l])<<32
		} else {
			low[l], high[l] = uint32(*p), uint32(*p>>32)
		}
	}
}
