//go:build linux && amd64

package main

// #include <stdlib.h>
// #include "runtime.h"
import "C"

import (
	"sync"
	"unsafe"

	"forge.lthn.ai/core/go-rocm/testing/rdna3"
)

// queueMemory is what the HIP runtime and kernels see of a queue.
type queueMemory = C.struct_queue

// setHeader makes a packet valid.
func setHeader(p *barrierPacket, header uint16) {
	C.store_header(unsafe.Pointer(p), C.uint16_t(header))
}

// advance adds to the write index of a queue.
func advance(q unsafe.Pointer, n uint64) {
	C.hsa_queue_add_write_index_screlease(q, C.uint64_t(n))
}

// A queue runs the packets that are written into its ring.
type queue struct {
	c        *C.struct_queue
	doorbell uint64
	card     *card
	callback unsafe.Pointer // of errors
	data     unsafe.Pointer
	rung     chan struct{} // has room for one: packets may be there
	closed   chan struct{}
	done     chan struct{}
}

// queues has the queues by their doorbells.
var queues sync.Map

func queueOf(doorbell uint64) *queue {
	q, _ := queues.Load(doorbell)
	out, _ := q.(*queue)
	return out
}

// ring tells the queue that packets may be there.
func (q *queue) ring() {
	select {
	case q.rung <- struct{}{}:
	default:
	}
}

//export hsa_queue_create
func hsa_queue_create(agent uint64, size, kind uint32, callback, data unsafe.Pointer, private, group uint32, out *unsafe.Pointer) status {
	c := cardOf(agent)
	if c == nil {
		return errAgent
	}
	if size == 0 || size&(size-1) != 0 || size > mostPackets {
		return errArgument
	}
	ring, s := allocate(hostAgent*poolsPerAgent+poolFine, uint64(size)*rdna3.PacketSize)
	if s != success {
		return s
	}
	control, s := allocate(hostAgent*poolsPerAgent+poolFine, uint64(unsafe.Sizeof(C.struct_queue{})))
	if s != success {
		free(ring.base)
		return s
	}
	q := &queue{
		c: (*C.struct_queue)(unsafe.Pointer(unsafe.SliceData(control.data))), card: c, callback: callback, data: data,
		rung: make(chan struct{}, 1), closed: make(chan struct{}), done: make(chan struct{}),
	}
	if s := hsa_signal_create(0, 0, nil, &q.doorbell); s != success {
		free(ring.base)
		free(control.base)
		return s
	}
	heap.Lock()
	control.allow(c) // kernels may read the queue
	ring.allow(c)    // and the packets
	heap.Unlock()
	for i := range uint64(size) {
		C.store_header(C.at(C.uint64_t(ring.base+i*rdna3.PacketSize)), packetInvalid)
	}
	const dispatchesKernels = 1
	*q.c = C.struct_queue{
		_type: C.uint32_t(kind), features: dispatchesKernels, base: C.at(C.uint64_t(ring.base)), doorbell: C.uint64_t(q.doorbell),
		size: C.uint32_t(size), id: C.uint64_t(q.doorbell),
		shared_aperture: rdna3.SharedAperture >> 32, private_aperture: rdna3.PrivateAperture >> 32,
	}
	queues.Store(q.doorbell, q)
	go q.run()
	*out = unsafe.Pointer(q.c)
	return success
}

//export hsa_queue_destroy
func hsa_queue_destroy(p *C.struct_queue) status {
	q := queueOf(uint64(p.doorbell))
	if q == nil {
		return errArgument
	}
	queues.Delete(q.doorbell)
	close(q.closed)
	<-q.done
	hsa_signal_destroy(q.doorbell)
	free(uint64(uintptr(p.base)))
	return free(uint64(uintptr(unsafe.Pointer(p))))
}

//export hsa_amd_queue_set_priority
func hsa_amd_queue_set_priority(queue unsafe.Pointer, priority uint32) status { return success }

// run runs packets until the queue is destroyed or a packet fails.
func (q *queue) run() {
	defer close(q.done)
	for at := uint64(0); ; at++ {
		p := C.at(C.uint64_t(uint64(uintptr(q.c.base)) + at%uint64(q.c.size)*rdna3.PacketSize))
		for at >= uint64(C.write_index(unsafe.Pointer(q.c))) || C.load_header(p)&0xff == packetInvalid {
			select {
			case <-q.closed:
				return
			case <-q.rung:
			}
		}
		if s := q.packet(p); s != success {
			C.call_queue(q.callback, C.uint32_t(s), unsafe.Pointer(q.c), q.data)
			return
		}
		C.store_header(p, packetInvalid)
		C.set_read_index(unsafe.Pointer(q.c), C.uint64_t(at+1))
	}
}
