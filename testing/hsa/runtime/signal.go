//go:build linux && amd64

package main

// #include <stdlib.h>
// #include "runtime.h"
import "C"

import (
	"math"
	"sync"
	"time"
	"unsafe"
)

const signalSize = unsafe.Sizeof(C.struct_signal{})

// watchers has a channel for each signal that something waits for. It is closed when the signal changes.
var watchers struct {
	sync.Mutex
	changed map[uint64]chan struct{}
}

// watch returns a channel that is closed when the signal changes after this call.
func watch(signal uint64) <-chan struct{} {
	watchers.Lock()
	defer watchers.Unlock()
	c := watchers.changed[signal]
	if c == nil {
		c = make(chan struct{})
		if watchers.changed == nil {
			watchers.changed = map[uint64]chan struct{}{}
		}
		watchers.changed[signal] = c
	}
	return c
}

// notify wakes who waits for the signal.
func notify(signal uint64) {
	watchers.Lock()
	defer watchers.Unlock()
	if c := watchers.changed[signal]; c != nil {
		close(c)
		delete(watchers.changed, signal)
	}
}

// shared has the signals whose value others write without a call.
var shared sync.Map

// Conditions of waits.
const (
	equal = iota
	notEqual
	less
	atLeast
)

func holds(condition uint32, value, with int64) bool {
	switch condition {
	case equal:
		return value == with
	case notEqual:
		return value != with
	case less:
		return value < with
	}
	return value >= with
}

// wait waits until the masked value of a signal fulfils a condition or the channel is closed, and returns the value.
func wait(signal uint64, condition uint32, with, mask int64, stop <-chan struct{}) int64 {
	for {
		changed := watch(signal)
		value := int64(C.load(C.uint64_t(signal)))
		if holds(condition, value&mask, with) {
			return value
		}
		var poll <-chan time.Time
		if _, ok := shared.Load(signal); ok {
			poll = time.After(time.Millisecond)
		}
		select {
		case <-changed:
		case <-poll:
		case <-stop:
			return value
		}
	}
}

const everyBit = -1

// complete stores when a packet or copy ran, and subtracts one from its signal.
func complete(signal uint64, start uint64) {
	if signal == 0 {
		return
	}
	s := (*C.struct_signal)(C.at(C.uint64_t(signal)))
	s.start, s.end = C.uint64_t(start), C.nanoseconds()
	C.add(C.uint64_t(signal), -1)
	notify(signal)
}

//export hsa_signal_create
func hsa_signal_create(value int64, n uint32, consumers unsafe.Pointer, out *uint64) status {
	p := (*C.struct_signal)(C.aligned_alloc(64, C.size_t(signalSize)))
	if p == nil {
		return errResources
	}
	const user = 1
	*p = C.struct_signal{kind: user, value: C.int64_t(value)}
	*out = uint64(uintptr(unsafe.Pointer(p)))
	return success
}

//export hsa_amd_signal_create
func hsa_amd_signal_create(value int64, n uint32, consumers unsafe.Pointer, attributes uint64, out *uint64) status {
	return hsa_signal_create(value, n, consumers, out)
}

//export hsa_signal_destroy
func hsa_signal_destroy(signal uint64) status {
	if signal == 0 {
		return errSignal
	}
	shared.Delete(signal)
	C.free(C.at(C.uint64_t(signal)))
	return success
}

//export hsa_amd_signal_value_pointer
func hsa_amd_signal_value_pointer(signal uint64, out *unsafe.Pointer) status {
	shared.Store(signal, true)
	*out = unsafe.Pointer(&(*C.struct_signal)(C.at(C.uint64_t(signal))).value)
	return success
}

//export hsa_signal_store_relaxed
func hsa_signal_store_relaxed(signal uint64, value int64) {
	if q := queueOf(signal); q != nil {
		q.ring()
		return
	}
	C.store(C.uint64_t(signal), C.int64_t(value))
	notify(signal)
}

//export hsa_signal_store_screlease
func hsa_signal_store_screlease(signal uint64, value int64) { hsa_signal_store_relaxed(signal, value) }

//export hsa_signal_add_relaxed
func hsa_signal_add_relaxed(signal uint64, value int64) {
	C.add(C.uint64_t(signal), C.int64_t(value))
	notify(signal)
}

//export hsa_signal_subtract_relaxed
func hsa_signal_subtract_relaxed(signal uint64, value int64) { hsa_signal_add_relaxed(signal, -value) }

//export hsa_signal_wait_scacquire
func hsa_signal_wait_scacquire(signal uint64, condition uint32, with int64, timeout uint64, hint uint32) int64 {
	if value := int64(C.load(C.uint64_t(signal))); holds(condition, value, with) || timeout == 0 {
		return value
	}
	var stop chan struct{}
	if timeout < math.MaxInt64 {
		stop = make(chan struct{})
		defer time.AfterFunc(time.Duration(timeout), func() { close(stop) }).Stop()
	}
	return wait(signal, condition, with, everyBit, stop)
}

// handlers serialises the handlers of signals, which the ROCm runtime calls from one thread.
var handlers sync.Mutex

//export hsa_amd_signal_async_handler
func hsa_amd_signal_async_handler(signal uint64, condition uint32, with int64, handler, arg unsafe.Pointer) status {
	if signal == 0 {
		return errSignal
	}
	go func() {
		for again := true; again; {
			value := wait(signal, condition, with, everyBit, nil)
			handlers.Lock()
			again = C.call_handler(handler, C.int64_t(value), arg) != 0
			handlers.Unlock()
		}
	}()
	return success
}

// times is the start and the end of a dispatch or copy.
type times struct{ start, end uint64 }

//export hsa_amd_profiling_get_async_copy_time
func hsa_amd_profiling_get_async_copy_time(signal uint64, out unsafe.Pointer) status {
	s := (*C.struct_signal)(C.at(C.uint64_t(signal)))
	return put(out, times{uint64(s.start), uint64(s.end)})
}

//export hsa_amd_profiling_get_dispatch_time
func hsa_amd_profiling_get_dispatch_time(agent, signal uint64, out unsafe.Pointer) status {
	return hsa_amd_profiling_get_async_copy_time(signal, out)
}

//export hsa_amd_profiling_set_profiler_enabled
func hsa_amd_profiling_set_profiler_enabled(queue unsafe.Pointer, enabled int32) status {
	return success
}

//export hsa_amd_profiling_async_copy_enable
func hsa_amd_profiling_async_copy_enable(enabled bool) status { return success }
