//go:build linux && amd64 && cgo

package main

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"forge.lthn.ai/core/go-rocm/testing/rdna3"
)

func TestMain(m *testing.M) {
	if process, err := strconv.Atoi(os.Getenv(envRecords)); err == nil {
		recordKernels(process)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	os.Setenv(envCards, "gfx1100,gfx1101")
	os.Exit(m.Run())
}

func must(t *testing.T, what string, s status) {
	t.Helper()
	if s != success {
		t.Fatalf("%s: %s", what, statusNames[s])
	}
}

func signalOf(t *testing.T, value int64) uint64 {
	t.Helper()
	var s uint64
	must(t, "hsa_signal_create", hsa_signal_create(value, 0, nil, &s))
	t.Cleanup(func() { hsa_signal_destroy(s) })
	return s
}

func memoryOf(t *testing.T, pool, n uint64) unsafe.Pointer {
	t.Helper()
	var p unsafe.Pointer
	must(t, "hsa_amd_memory_pool_allocate", hsa_amd_memory_pool_allocate(pool, n, 0, &p))
	t.Cleanup(func() { hsa_amd_memory_pool_free(p) })
	return p
}

const (
	hostPool = hostAgent*poolsPerAgent + poolFine
	cardPool = firstAgent*poolsPerAgent + poolCoarse
	cardLDS  = firstAgent*poolsPerAgent + poolGroup
)

func TestWaitEndsWithTheConditionOrTheTimeout(t *testing.T) {
	s := signalOf(t, 2)
	go func() {
		hsa_signal_subtract_relaxed(s, 1)
		hsa_signal_subtract_relaxed(s, 1)
	}()
	if got := hsa_signal_wait_scacquire(s, less, 1, ^uint64(0), 0); got != 0 {
		t.Errorf("the wait for less than one ends with %d", got)
	}
	if got := hsa_signal_wait_scacquire(s, equal, 7, uint64(time.Millisecond), 0); got != 0 {
		t.Errorf("a wait that ends with its time returns %d", got)
	}
}

// TestCardsHaveTheirOwnMemory checks what a card may access, and that its memory is counted.
func TestCardsHaveTheirOwnMemory(t *testing.T) {
	all, err := cards()
	if err != nil || len(all) != 2 || all[0].target != "gfx1100" || all[1].target != "gfx1101" {
		t.Fatalf("cards %v, %v", all, err)
	}
	before := all[0].available()
	p := memoryOf(t, cardPool, 5000)
	if used := before - all[0].available(); used != 8192 {
		t.Errorf("5000 bytes use %d", used)
	}
	a := find(uint64(uintptr(p)))
	if !a.access[all[0]] || a.access[all[1]] {
		t.Errorf("memory of the first card can be accessed by %v", a.access)
	}
	second := all[1].agent()
	if s := hsa_amd_agents_allow_access(1, &second, nil, p); s != errArgument {
		t.Errorf("the second card gets the first one's memory: %s", statusNames[s])
	}
	var none unsafe.Pointer
	if s := hsa_amd_memory_pool_allocate(cardPool, all[0].vram, 0, &none); s != errResources {
		t.Errorf("all memory and a bit more: %s", statusNames[s])
	}
	if s := hsa_amd_memory_pool_allocate(cardLDS, 64, 0, &none); s != errPool {
		t.Errorf("memory of the pool of LDS: %s", statusNames[s])
	}
	h := memoryOf(t, hostPool, 64)
	if a := find(uint64(uintptr(h))); len(a.access) != 0 {
		t.Errorf("memory of the host can be accessed by %v", a.access)
	}
	must(t, "hsa_amd_agents_allow_access", hsa_amd_agents_allow_access(1, &second, nil, h))
	if a := find(uint64(uintptr(h))); !a.access[all[1]] {
		t.Error("memory of the host cannot be accessed by the second card")
	}
}

// TestLockedMemoryGrowsTogether locks ranges that overlap, and unlocks one after the other.
func TestLockedMemoryGrowsTogether(t *testing.T) {
	buffer := make([]byte, 6*pageSize)
	start := unsafe.Pointer(unsafe.SliceData(buffer))
	at := func(n int) unsafe.Pointer { return unsafe.Add(start, n) }
	var out unsafe.Pointer
	must(t, "lock", hsa_amd_memory_lock_to_pool(at(100), pageSize, nil, 0, hostPool, 0, &out))
	if out != at(100) {
		t.Errorf("locked at %p, and not %p", out, at(100))
	}
	must(t, "lock", hsa_amd_memory_lock_to_pool(at(4*pageSize), 10, nil, 0, hostPool, 0, &out))
	must(t, "lock", hsa_amd_memory_lock_to_pool(at(200), 4*pageSize, nil, 0, hostPool, 0, &out))
	if !known(at(100), 4*pageSize) {
		t.Error("the ranges are not one")
	}
	for n, from := range []int{100, 4 * pageSize, 200} {
		if !known(at(200), 8) {
			t.Errorf("after %d of 3 unlocks nothing is locked", n)
		}
		must(t, "unlock", hsa_amd_memory_unlock(at(from)))
	}
	if known(at(200), 8) {
		t.Error("after 3 unlocks memory is still locked")
	}
	if s := hsa_amd_memory_unlock(at(100)); s != errArgument {
		t.Errorf("a fourth unlock: %s", statusNames[s])
	}
}

// TestCopiesWaitAndKeepTheirOrder starts a copy that waits for a signal, and one behind it that does not.
func TestCopiesWaitAndKeepTheirOrder(t *testing.T) {
	p := memoryOf(t, cardPool, 64)
	h := memoryOf(t, hostPool, 128)
	from, to := unsafe.Slice((*byte)(h), 128), unsafe.Slice((*byte)(p), 64)
	for n := range from {
		from[n] = byte(n)
	}
	gate, first, second := signalOf(t, 1), signalOf(t, 1), signalOf(t, 1)
	must(t, "copy", hsa_amd_memory_async_copy(p, firstAgent, h, hostAgent, 64, 1, &gate, first))
	must(t, "copy", hsa_amd_memory_async_copy(p, firstAgent, unsafe.Add(h, 64), hostAgent, 64, 0, nil, second))
	if got := hsa_signal_wait_scacquire(second, less, 1, uint64(10*time.Millisecond), 0); got != 1 {
		t.Error("the second copy runs before the first")
	}
	hsa_signal_store_screlease(gate, 0)
	hsa_signal_wait_scacquire(second, less, 1, ^uint64(0), 0)
	if !bytes.Equal(to, from[64:]) {
		t.Errorf("copied %v", to)
	}
	var when times
	must(t, "times", hsa_amd_profiling_get_async_copy_time(first, unsafe.Pointer(&when)))
	if when.start == 0 || when.end < when.start {
		t.Errorf("the copy ran from %d to %d", when.start, when.end)
	}
	if s := hsa_amd_memory_async_copy(p, firstAgent, h, hostAgent, 1<<20, 0, nil, 0); s != errArgument {
		t.Errorf("a copy beyond its memory: %s", statusNames[s])
	}
}

// TestQueueWaitsAtBarriers writes two barrier packets, of which the first waits for all of its signals and the second
// for any.
func TestQueueWaitsAtBarriers(t *testing.T) {
	const size = 64
	var p unsafe.Pointer
	must(t, "hsa_queue_create", hsa_queue_create(firstAgent, size, 0, nil, nil, 0, 0, &p))
	doorbell := uint64((*queueMemory)(p).doorbell)
	packets := unsafe.Slice((*barrierPacket)((*queueMemory)(p).base), size)
	a, b, all, anyOf := signalOf(t, 1), signalOf(t, 1), signalOf(t, 1), signalOf(t, 1)
	packets[0].wait, packets[0].signal = [5]uint64{a, b}, all
	packets[1].wait, packets[1].signal = [5]uint64{a, b}, anyOf
	setHeader(&packets[0], packetAnd)
	setHeader(&packets[1], packetOr)
	advance(p, 2)
	hsa_signal_store_screlease(doorbell, 1)
	hsa_signal_store_screlease(b, 0)
	if got := hsa_signal_wait_scacquire(all, less, 1, uint64(10*time.Millisecond), 0); got != 1 {
		t.Error("the packet does not wait for its first signal")
	}
	hsa_signal_store_screlease(a, 0)
	hsa_signal_wait_scacquire(all, less, 1, ^uint64(0), 0)
	hsa_signal_store_screlease(a, 1)
	hsa_signal_wait_scacquire(anyOf, less, 1, ^uint64(0), 0)
	must(t, "hsa_queue_destroy", hsa_queue_destroy((*queueMemory)(p)))
}

func TestStructuresHaveTheirSizes(t *testing.T) {
	for name, sizes := range map[string][2]uintptr{
		"dispatch packet": {unsafe.Sizeof(dispatchPacket{}), rdna3.PacketSize},
		"barrier packet":  {unsafe.Sizeof(barrierPacket{}), rdna3.PacketSize},
		"value packet":    {unsafe.Sizeof(valuePacket{}), rdna3.PacketSize},
		"signal":          {signalSize, 64},
		"read index":      {unsafe.Offsetof(queueMemory{}.read_index), 128},
		"write index":     {unsafe.Offsetof(queueMemory{}.write_index), 56},
		"link":            {unsafe.Sizeof(link{}), 28},
		"pointer":         {unsafe.Sizeof(pointerInfo{}), 56},
	} {
		if sizes[0] != sizes[1] {
			t.Errorf("%s: %d, and not %d", name, sizes[0], sizes[1])
		}
	}
}
