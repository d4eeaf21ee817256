//go:build linux && amd64

package main

// #include "runtime.h"
import "C"

import (
	"sync"
	"unsafe"
)

// A transfer copies memory after the signals are zero.
type transfer struct {
	to, from []byte
	wait     []uint64
	signal   uint64
}

// engines has the queue of transfers for each pair of agents. HIP expects transfers of a direction to be in order.
var engines struct {
	sync.Mutex
	queues map[[2]uint64]chan transfer
}

// engine returns the queue of a direction.
func engine(to, from uint64) chan<- transfer {
	engines.Lock()
	defer engines.Unlock()
	key := [2]uint64{to, from}
	if engines.queues == nil {
		engines.queues = map[[2]uint64]chan transfer{}
	}
	c := engines.queues[key]
	if c == nil {
		const most = 1024
		c = make(chan transfer, most)
		engines.queues[key] = c
		go func() {
			for t := range c {
				t.run()
			}
		}()
	}
	return c
}

func (t *transfer) run() {
	for _, signal := range t.wait {
		wait(signal, equal, 0, everyBit, nil)
	}
	start := uint64(C.nanoseconds())
	copy(t.to, t.from)
	complete(t.signal, start)
}

// known reports whether n bytes at p are inside memory of a pool or locked memory.
func known(p unsafe.Pointer, n uint64) bool {
	heap.Lock()
	defer heap.Unlock()
	addr := uint64(uintptr(p))
	a := find(addr)
	return a != nil && n <= a.base+a.size-addr
}

//export hsa_amd_memory_async_copy
func hsa_amd_memory_async_copy(to unsafe.Pointer, toAgent uint64, from unsafe.Pointer, fromAgent, n uint64, count uint32, signals *uint64, signal uint64) status {
	if to == nil || from == nil {
		return errArgument
	}
	if n > 0 && (!known(to, n) || !known(from, n)) {
		logf("a copy of %d bytes from %p to %p is outside memory that the cards may access", n, from, to)
		return errArgument
	}
	t := transfer{to: unsafe.Slice((*byte)(to), n), from: unsafe.Slice((*byte)(from), n), signal: signal}
	t.wait = append(t.wait, unsafe.Slice(signals, count)...)
	engine(toAgent, fromAgent) <- t
	return success
}

//export hsa_amd_memory_async_copy_on_engine
func hsa_amd_memory_async_copy_on_engine(to unsafe.Pointer, toAgent uint64, from unsafe.Pointer, fromAgent, n uint64, count uint32, signals *uint64, signal uint64, engine uint32, force bool) status {
	return hsa_amd_memory_async_copy(to, toAgent, from, fromAgent, n, count, signals, signal)
}

//export hsa_amd_memory_copy_engine_status
func hsa_amd_memory_copy_engine_status(to, from uint64, mask *uint32) status {
	*mask = 3 // both engines are free
	return success
}

//export hsa_memory_copy
func hsa_memory_copy(to, from unsafe.Pointer, n uint64) status {
	if n == 0 {
		return success
	}
	if to == nil || from == nil {
		return errArgument
	}
	copy(unsafe.Slice((*byte)(to), n), unsafe.Slice((*byte)(from), n))
	return success
}
