//go:build linux && amd64

package main

// #include "runtime.h"
import "C"

import (
	"cmp"
	"slices"
	"sync"
	"unsafe"
)

// An allocation is memory of a pool, or memory of the process that is locked for the cards.
type allocation struct {
	base, size uint64
	data       []byte
	pool       uint64
	owner      *card // nil for the host's
	locks      int   // for locked memory: how often; 0 for memory of a pool
	access     map[*card]bool
}

// heap has all allocations, sorted by base.
var heap struct {
	sync.Mutex
	list []*allocation
}

// find returns the allocation with an address, or nil. The heap is locked.
func find(addr uint64) *allocation {
	i, exact := slices.BinarySearchFunc(heap.list, addr, func(a *allocation, addr uint64) int { return cmp.Compare(a.base, addr) })
	if !exact {
		i--
	}
	if i < 0 || addr-heap.list[i].base >= heap.list[i].size {
		return nil
	}
	return heap.list[i]
}

func insert(a *allocation) {
	i, _ := slices.BinarySearchFunc(heap.list, a.base, func(a *allocation, addr uint64) int { return cmp.Compare(a.base, addr) })
	heap.list = slices.Insert(heap.list, i, a)
}

func remove(a *allocation) {
	heap.list = slices.DeleteFunc(heap.list, func(b *allocation) bool { return a == b })
	for c := range a.access {
		c.memory.Unmap(a.base)
	}
}

// allow makes an allocation accessible to a card.
func (a *allocation) allow(c *card) {
	if !a.access[c] {
		a.access[c] = true
		c.memory.Map(a.base, a.data)
	}
}

// allocate returns memory of a pool, accessible to its owner.
func allocate(handle, size uint64) (*allocation, status) {
	owner, kind, ok := pool(handle)
	if !ok || kind == poolGroup {
		return nil, errPool
	}
	if size == 0 {
		return nil, errArgument
	}
	size = (size + pageSize - 1) &^ (pageSize - 1)
	if owner != nil && !owner.take(size) {
		return nil, errResources
	}
	p := C.reserve(C.size_t(size))
	if p == nil {
		if owner != nil {
			owner.give(size)
		}
		return nil, errResources
	}
	a := &allocation{
		base: uint64(uintptr(p)), size: size, data: unsafe.Slice((*byte)(p), size),
		pool: handle, owner: owner, access: map[*card]bool{},
	}
	heap.Lock()
	defer heap.Unlock()
	insert(a)
	if owner != nil {
		a.allow(owner)
	}
	return a, success
}

// free returns memory to its pool.
func free(base uint64) status {
	heap.Lock()
	defer heap.Unlock()
	a := find(base)
	if a == nil || a.base != base || a.locks != 0 {
		return errAllocation
	}
	remove(a)
	if a.owner != nil {
		a.owner.give(a.size)
	}
	C.release(C.at(C.uint64_t(base)), C.size_t(a.size))
	return success
}

//export hsa_amd_memory_pool_allocate
func hsa_amd_memory_pool_allocate(handle, size uint64, flags uint32, out *unsafe.Pointer) status {
	a, s := allocate(handle, size)
	if s == success {
		*out = unsafe.Pointer(unsafe.SliceData(a.data))
	}
	return s
}

//export hsa_amd_memory_pool_free
func hsa_amd_memory_pool_free(p unsafe.Pointer) status {
	if p == nil {
		return success
	}
	return free(uint64(uintptr(p)))
}

//export hsa_amd_agents_allow_access
func hsa_amd_agents_allow_access(n uint32, agents *uint64, flags, p unsafe.Pointer) status {
	heap.Lock()
	defer heap.Unlock()
	a := find(uint64(uintptr(p)))
	if a == nil || a.locks != 0 {
		return errAllocation
	}
	for _, agent := range unsafe.Slice(agents, n) {
		c := cardOf(agent)
		switch {
		case agent == hostAgent:
		case c == nil:
			return errAgent
		case a.owner != nil && a.owner != c: // see accessNever
			return errArgument
		default:
			a.allow(c)
		}
	}
	return success
}

//export hsa_amd_memory_lock_to_pool
func hsa_amd_memory_lock_to_pool(p unsafe.Pointer, size uint64, agents *uint64, n int32, handle uint64, flags uint32, out *unsafe.Pointer) status {
	if p == nil || size == 0 {
		return errArgument
	}
	var wanted []*card
	if agents == nil || n == 0 {
		wanted, _ = cards()
	} else {
		for _, agent := range unsafe.Slice(agents, n) {
			if c := cardOf(agent); c != nil {
				wanted = append(wanted, c)
			}
		}
	}
	// Whole pages, as the kernel driver does it: what is behind the end of a buffer is accessible too.
	base := uint64(uintptr(p)) &^ (pageSize - 1)
	end := (uint64(uintptr(p)) + size + pageSize - 1) &^ (pageSize - 1)
	heap.Lock()
	defer heap.Unlock()
	locked := lock(base, end, handle)
	for _, c := range wanted {
		locked.allow(c)
	}
	*out = p
	return success
}

// lock returns the allocation for locked memory from base to end. It grows over others that it touches.
func lock(base, end, handle uint64) *allocation {
	if a := find(base); a != nil && a.locks > 0 && a.base == base && a.base+a.size >= end {
		a.locks++
		return a
	}
	merged := &allocation{base: base, size: end - base, pool: handle, locks: 1, access: map[*card]bool{}}
	for _, a := range slices.Clone(heap.list) {
		if a.locks == 0 || a.base >= end || a.base+a.size <= base {
			continue
		}
		last := max(merged.base+merged.size, a.base+a.size)
		merged.base = min(merged.base, a.base)
		merged.size = last - merged.base
		merged.locks += a.locks
		remove(a)
		defer func() {
			for c := range a.access {
				merged.allow(c)
			}
		}()
	}
	merged.data = unsafe.Slice((*byte)(C.at(C.uint64_t(merged.base))), merged.size)
	insert(merged)
	return merged
}

//export hsa_amd_memory_unlock
func hsa_amd_memory_unlock(p unsafe.Pointer) status {
	heap.Lock()
	defer heap.Unlock()
	a := find(uint64(uintptr(p)))
	if a == nil || a.locks == 0 {
		return errArgument
	}
	if a.locks--; a.locks == 0 {
		remove(a)
	}
	return success
}

// pointerInfo is what hsa_amd_pointer_info returns.
type pointerInfo struct {
	bytes, kind     uint32
	agentBase, base uint64
	size            uint64
	user            uint64
	owner           uint64
	flags           uint32
}

//export hsa_amd_pointer_info
func hsa_amd_pointer_info(p, out, alloc unsafe.Pointer, count *uint32, agents **uint64) status {
	const known, locked = 1, 2
	heap.Lock()
	defer heap.Unlock()
	info := pointerInfo{bytes: *(*uint32)(out)}
	a := find(uint64(uintptr(p)))
	if a != nil {
		info.kind, info.agentBase, info.base, info.size, info.owner = known, a.base, a.base, a.size, hostAgent
		info.flags = flags(a.pool % poolsPerAgent)
		if a.locks > 0 {
			info.kind = locked
		}
		if a.owner != nil {
			info.owner = a.owner.agent()
		}
	}
	copy(unsafe.Slice((*byte)(out), info.bytes), unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info)))
	if a == nil || count == nil || agents == nil || alloc == nil {
		return success
	}
	list := (*uint64)(C.call_alloc(alloc, C.size_t(8*(1+len(a.access)))))
	to := unsafe.Slice(list, 1+len(a.access))
	n := 0
	for c := range a.access {
		to[n] = c.agent()
		n++
	}
	if a.owner == nil {
		to[n] = hostAgent
		n++
	}
	*count, *agents = uint32(n), list
	return success
}
