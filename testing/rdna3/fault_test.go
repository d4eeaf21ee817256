package rdna3

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// Instructions of the kernels under test, as LLVM's assembler writes them.
const (
	loadWord   = 0xdc520000 // global_load_b32 v0, v0, s[0:1]
	storeWord  = 0xdc6a0000 // global_store_b32 v0, v1, s[0:1]
	addWord    = 0xdcd60000 // global_atomic_add_u32 v0, v1, s[0:1]
	endProgram = 0xbfb00000
	loop       = 0xbfa0ffff // s_branch to itself
	one        = 0x7e020281 // v_mov_b32 v1, 1
	zeroAddr   = 0x7e000280 // v_mov_b32 v0, 0
)

// kernelOf returns a kernel that gets an address in s[0:1].
func kernelOf(words ...uint32) *Kernel {
	return &Kernel{
		Name: "some_kernel", Entry: 0x1000, Lanes: 32, vgprs: vgprs, mode: 0x3f0, user: []int{userKernarg}, userCount: 2,
		program: NewProgram(0x1000, words),
	}
}

// start runs groups of 32 items of a kernel.
func start(ctx context.Context, m *Memory, k *Kernel, addr uint64, groups uint32) (Stats, error) {
	return m.Run(ctx, &Dispatch{Kernel: k, Group: [3]uint32{32, 1, 1}, Grid: [3]uint32{32 * groups, 1, 1}, Kernarg: addr, Workers: 4})
}

// TestMemoryFaults checks that an access outside memory names kernel, instruction, address and direction.
func TestMemoryFaults(t *testing.T) {
	const base = 0x7000_0000
	for _, tc := range []struct {
		name  string
		word  uint32
		write bool
	}{{"global_load_b32", loadWord, false}, {"global_store_b32", storeWord, true}, {"global_atomic_add_u32", addWord, true}} {
		m := &Memory{}
		m.Map(base, make([]byte, 64))
		_, err := start(t.Context(), m, kernelOf(zeroAddr, one, tc.word, 0x00000100, endProgram), base+64, 3)
		var fault *Fault
		var memory *MemoryError
		if !errors.As(err, &fault) || !errors.As(err, &memory) {
			t.Fatalf("%s: the error is %v", tc.name, err)
		}
		if fault.Kernel != "some_kernel" || fault.Addr != 0x1008 || !strings.HasPrefix(fault.Text, tc.name) || len(fault.Words) != 2 {
			t.Errorf("%s: the fault is %+v", tc.name, fault)
		}
		if memory.Addr != base+64 || memory.Size != 4 || memory.Write != tc.write {
			t.Errorf("%s: the access is %+v", tc.name, memory)
		}
	}
}

// TestUnmappedByHost maps memory of the host that it has taken away again.
func TestUnmappedByHost(t *testing.T) {
	page, err := syscall.Mmap(-1, 0, 4096, syscall.PROT_NONE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Munmap(page); err != nil {
			t.Error(err)
		}
	}()
	at := uint64(uintptr(unsafe.Pointer(&page[0])))
	m := &Memory{}
	m.Map(at, page)
	for _, word := range []uint32{loadWord, storeWord, addWord} {
		_, err = start(t.Context(), m, kernelOf(zeroAddr, one, word, 0x00000100, endProgram), at, 1)
		var fault *Fault
		var memory *MemoryError
		if !errors.As(err, &fault) || !errors.As(err, &memory) || memory.Addr != at || fault.Addr != 0x1008 {
			t.Errorf("%08x: the error is %v", word, err)
		}
	}
}

// TestUnalignedAtomic checks that an atomic at an odd address is an error, as on a card.
func TestUnalignedAtomic(t *testing.T) {
	const base = 0x7000_0000
	m := &Memory{}
	m.Map(base, make([]byte, 64))
	_, err := start(t.Context(), m, kernelOf(zeroAddr, one, addWord, 0x00000100, endProgram), base+2, 1)
	var alignment *AlignmentError
	if !errors.As(err, &alignment) || alignment.Addr != base+2 || alignment.Size != 4 {
		t.Errorf("the error is %v", err)
	}
}

// TestCancelStopsWave stops a wave that does not end by its context.
func TestCancelStopsWave(t *testing.T) {
	cause := map[string]func() (context.Context, context.CancelFunc, error){
		"cancel": func() (context.Context, context.CancelFunc, error) {
			ctx, cancel := context.WithCancel(t.Context())
			go cancel()
			return ctx, cancel, context.Canceled
		},
		"deadline": func() (context.Context, context.CancelFunc, error) {
			ctx, cancel := context.WithTimeout(t.Context(), 1)
			return ctx, cancel, context.DeadlineExceeded
		},
	}
	for name, begin := range cause {
		ctx, cancel, want := begin()
		_, err := start(ctx, &Memory{}, kernelOf(loop, endProgram), 0, 8)
		cancel()
		if !errors.Is(err, want) {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
	// A wave that has begun is named.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	k := kernelOf(loop, endProgram)
	g := newGroup(&Memory{}, &Dispatch{Kernel: k, Group: [3]uint32{32, 1, 1}, Grid: [3]uint32{32, 1, 1}})
	defer g.release()
	cancel()
	var fault *Fault
	if err := g.run(ctx, k.program, &Stats{}); !errors.As(err, &fault) || fault.Kernel != "some_kernel" || fault.Text != "s_branch 65535" {
		t.Errorf("the error is %v", err)
	}
}

// TestInvalidDispatch starts what no card starts.
func TestInvalidDispatch(t *testing.T) {
	k := kernelOf(endProgram)
	for _, d := range []*Dispatch{
		{Kernel: k, Group: [3]uint32{0, 1, 1}, Grid: [3]uint32{1, 1, 1}},
		{Kernel: k, Group: [3]uint32{1024, 2, 1}, Grid: [3]uint32{1024, 2, 1}},
		{Kernel: k, Group: [3]uint32{1, 1, 1}, Grid: [3]uint32{1, 1, 1}, LDS: 1<<16 + 1},
	} {
		_, err := new(Memory).Run(t.Context(), d)
		var invalid *DispatchError
		if !errors.As(err, &invalid) {
			t.Errorf("groups of %v and %d bytes of LDS: the error is %v", d.Group, d.LDS, err)
		}
	}
	if _, err := new(Memory).Run(t.Context(), &Dispatch{Kernel: k, Group: [3]uint32{32, 1, 1}}); err != nil {
		t.Errorf("an empty grid: %v", err)
	}
}
