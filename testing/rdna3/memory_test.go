package rdna3

import (
	"slices"
	"sync"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

// TestMemoryFinds looks up addresses in and between thousands of regions.
func TestMemoryFinds(t *testing.T) {
	const count, apart, size = 4000, 1 << 20, 256
	m := &Memory{}
	for n := range uint64(count) {
		m.Map((n*7919%count+1)*apart, make([]byte, size)) // in no order
	}
	for n := range uint64(count) {
		base := (n + 1) * apart
		for _, tc := range []struct {
			at    uint64
			bytes int
			found bool
		}{{base, 4, true}, {base + size - 4, 4, true}, {base + size - 3, 4, false}, {base - 4, 4, false}, {base + size, 1, false}} {
			r := m.find(tc.at, tc.bytes)
			if (r != nil) != tc.found || r != nil && r.Base != base {
				t.Fatalf("%d bytes at %#x: %+v", tc.bytes, tc.at, r)
			}
		}
	}
	m.Unmap(5 * apart)
	if m.find(5*apart, 4) != nil || m.find(6*apart, 4) == nil || len(m.list()) != count-1 {
		t.Error("another region than the one at the address has gone")
	}
}

// TestAtomicsOfAllProcessors has all groups add to one word of the host's memory, while regions come and go.
func TestAtomicsOfAllProcessors(t *testing.T) {
	const base, groups = 0x7000_0000, 2000
	counter := make([]byte, 8)
	m := &Memory{}
	m.Map(base, counter)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := uint64(0); ; n++ {
			select {
			case <-stop:
				return
			default:
				at := 0x1_0000_0000 + n%64<<16
				m.Map(at, make([]byte, 16))
				m.Unmap(at)
			}
		}
	})
	stats, err := start(t.Context(), m, kernelOf(zeroAddr, one, addWord, 0x00000100, endProgram), base, groups)
	close(stop)
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if got := load32(counter); got != groups*32 {
		t.Errorf("the sum is %d, and not %d", got, groups*32)
	}
	if stats.Groups != groups || stats.Instructions != groups*4 || stats.Lanes != groups*3*32 {
		t.Errorf("the dispatch counts %+v", stats)
	}
}

// TestChangeMissesNothing changes a number while another processor does: f stands for both.
func TestChangeMissesNothing(t *testing.T) {
	for _, size := range []int{4, 8} {
		b := make([]byte, size)
		calls := 0
		old := change(b, func(old uint64) uint64 {
			if calls++; calls == 1 {
				storeN(b, 5)
			}
			return old + 1
		})
		if got := loadN(b); got != 6 || old != 5 || calls != 2 {
			t.Errorf("%d bytes: the sum is %d, from %d, in %d attempts", size, got, old, calls)
		}
	}
}

// BenchmarkFind looks up addresses in turn among 4000 regions.
func BenchmarkFind(b *testing.B) {
	m := &Memory{}
	for n := range uint64(4000) {
		m.Map((n+1)<<20, make([]byte, 16))
	}
	n := uint64(0)
	for b.Loop() {
		if n++; m.find((n*7919%4000+1)<<20, 4) == nil {
			b.Fatal("not found")
		}
	}
}

// TestObjectIDIgnoresWhatFollows identifies a code object by its own bytes.
func TestObjectIDIgnoresWhatFollows(t *testing.T) {
	code := elfgen.CodeObject(0x41, []string{"kernel"}, 100)
	id := ObjectID(code)
	if got := ObjectID(append(slices.Clone(code), make([]byte, 4000)...)); got != id {
		t.Errorf("with padding it is %s, and not %s", got, id)
	}
	for _, at := range []int{0, len(code) / 2, len(code) - 1} {
		changed := slices.Clone(code)
		changed[at] ^= 1
		if ObjectID(changed) == id {
			t.Errorf("another byte %d is the same object", at)
		}
	}
	if ObjectID(nil) == ObjectID([]byte{0}) {
		t.Error("no bytes and a zero are the same object")
	}
}
