package rdna3

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Addresses of the windows through which flat instructions reach LDS and scratch.
const (
	SharedAperture  = 0x0001_0000_0000_0000
	PrivateAperture = 0x0002_0000_0000_0000
	apertureSize    = 1 << 32
)

// A Region is memory that a kernel may access.
type Region struct {
	Base uint64
	Data []byte
}

// Memory is the global memory of a card. All its methods may be called at the same time. Accesses of kernels are those
// of the processor: atomics are atomic for all waves and for the host, other accesses of up to eight bytes at an
// address that is a multiple of their size are whole.
type Memory struct {
	mu      sync.Mutex                // of changes
	regions atomic.Pointer[[]*Region] // sorted by base; a change replaces the list
}

func (m *Memory) list() []*Region {
	if p := m.regions.Load(); p != nil {
		return *p
	}
	return nil
}

// Map adds a region. Regions do not overlap.
func (m *Memory) Map(base uint64, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.list()
	list := slices.Insert(slices.Clone(old), after(old, base), &Region{base, data})
	m.regions.Store(&list)
}

// Unmap removes the region at base. A dispatch that is running may go on to access it until it ends.
func (m *Memory) Unmap(base uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(m.list()), func(r *Region) bool { return r.Base == base })
	m.regions.Store(&list)
}

// after returns the number of regions that begin at addr or before.
func after(list []*Region, addr uint64) int {
	return sort.Search(len(list), func(i int) bool { return list[i].Base > addr })
}

// find returns the region with n bytes at addr.
func (m *Memory) find(addr uint64, n int) *Region {
	list := m.list()
	i := after(list, addr) - 1
	if i < 0 || !list[i].holds(addr, n) {
		return nil
	}
	return list[i]
}

func (r *Region) holds(addr uint64, n int) bool {
	off := addr - r.Base
	return off <= uint64(len(r.Data)) && uint64(n) <= uint64(len(r.Data))-off
}

// A MemoryError reports an access outside every region.
type MemoryError struct {
	Addr  uint64
	Size  int
	Write bool
}

// Error implements error.
func (e *MemoryError) Error() string {
	what := "read"
	if e.Write {
		what = "write"
	}
	return fmt.Sprintf("%s of %d bytes at %#x, which are not mapped", what, e.Size, e.Addr)
}

// An AlignmentError reports an atomic at an address that is not a multiple of its size.
type AlignmentError struct {
	Addr uint64
	Size int
}

// Error implements error.
func (e *AlignmentError) Error() string {
	return fmt.Sprintf("atomic of %d bytes at %#x, which is not a multiple of them", e.Size, e.Addr)
}

// nearby is the number of regions that a wave remembers. The instructions of a loop have one each, as a rule.
const nearby = 16

// seek returns the region with n bytes at an address, which an instruction of a slot accesses, or nil.
func (w *Wave) seek(slot uint8, addr uint64, n int) *Region {
	near := &w.near[slot%nearby]
	if *near == nil || !(*near).holds(addr, n) {
		r := w.group.mem.find(addr, n)
		if r == nil {
			return nil
		}
		*near = r
	}
	return *near
}

// region returns the region with n bytes at an address. An access outside every region stops the wave.
func (w *Wave) region(slot uint8, addr uint64, n int) *Region {
	r := w.seek(slot, addr, n)
	if r == nil {
		panic(&MemoryError{Addr: addr, Size: n})
	}
	return r
}

// bytes returns n bytes of global memory.
func (w *Wave) bytes(addr uint64, n int) []byte {
	r := w.region(0, addr, n)
	off := addr - r.Base
	return r.Data[off : off+uint64(n) : off+uint64(n)]
}

// flat returns n bytes at an address that may be in the window of LDS or scratch.
func (w *Wave) flat(addr uint64, lane, n int) []byte {
	switch {
	case addr-SharedAperture < apertureSize:
		return w.ldsBytes(uint32(addr), n)
	case addr-PrivateAperture < apertureSize:
		return w.scratchBytes(int64(addr-PrivateAperture), lane, n)
	}
	return w.bytes(addr, n)
}

func (w *Wave) ldsBytes(addr uint32, n int) []byte {
	if uint64(addr)+uint64(n) > uint64(len(w.group.lds)) {
		panic(&MemoryError{Addr: SharedAperture + uint64(addr), Size: n})
	}
	return w.group.lds[addr : int(addr)+n]
}

func (w *Wave) scratchBytes(addr int64, lane, n int) []byte {
	if addr < 0 || addr+int64(n) > int64(w.scratchSize) {
		panic(&MemoryError{Addr: PrivateAperture + uint64(addr), Size: n})
	}
	at := lane*w.scratchSize + int(addr)
	return w.scratch[at : at+n]
}

func load32(b []byte) uint32     { return binary.LittleEndian.Uint32(b) }
func store32(b []byte, x uint32) { binary.LittleEndian.PutUint32(b, x) }

// loadN and storeN access a number of 1, 2, 4 or 8 bytes.
func loadN(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(load32(b))
	}
	return binary.LittleEndian.Uint64(b)
}

func storeN(b []byte, x uint64) {
	switch len(b) {
	case 1:
		b[0] = byte(x)
	case 2:
		binary.LittleEndian.PutUint16(b, uint16(x))
	case 4:
		store32(b, uint32(x))
	default:
		binary.LittleEndian.PutUint64(b, x)
	}
}

// change replaces the number in b by what f returns for it, and returns what it was. Nothing comes in between.
func change(b []byte, f func(old uint64) uint64) uint64 {
	p := unsafe.Pointer(unsafe.SliceData(b))
	if len(b) == 4 {
		for at := (*uint32)(p); ; {
			old := atomic.LoadUint32(at)
			if atomic.CompareAndSwapUint32(at, old, uint32(f(uint64(old)))) {
				return uint64(old)
			}
		}
	}
	for at := (*uint64)(p); ; {
		old := atomic.LoadUint64(at)
		if atomic.CompareAndSwapUint64(at, old, f(old)) {
			return old
		}
	}
}
