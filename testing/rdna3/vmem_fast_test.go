package rdna3

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

// Regions of the test of accesses: two side by side and one apart.
var testRegions = []uint64{0x7f12_0000_0000, 0x7f12_0001_0000, 0x7f56_0000_0000}

const testRegionSize = 1 << 16

// accessState is a wave with memory of its own.
type accessState struct {
	w    *Wave
	data [3][]byte
}

// newAccessState returns a wave with random memory, LDS and scratch.
func newAccessState(r *rand.Rand, lanes int, exec uint64) *accessState {
	a := &accessState{w: randomWave(r, lanes, 0x3f0, exec)}
	from := r.IntN(len(operands) / 2)
	noise := func(n int) []byte {
		out := make([]byte, 0, n+4)
		for k := from; len(out) < n; k++ {
			out = binary.LittleEndian.AppendUint32(out, operands[k%len(operands)]*uint32(k))
		}
		return out[:n]
	}
	a.w.group.lds = noise(testRegionSize)
	a.w.scratchSize = 1 << 10
	a.w.scratch = noise(lanes << 10)
	for n, base := range testRegions {
		a.data[n] = noise(testRegionSize)
		a.w.group.mem.Map(base, a.data[n])
	}
	return a
}

// clone returns a copy that shares no memory.
func (a *accessState) clone() *accessState {
	b := &accessState{w: copyOf(a.w)}
	b.w.group = &group{mem: &Memory{}, lds: bytes.Clone(a.w.group.lds)}
	b.w.scratch = bytes.Clone(a.w.scratch)
	for n, base := range testRegions {
		b.data[n] = bytes.Clone(a.data[n])
		b.w.group.mem.Map(base, b.data[n])
	}
	return b
}

// address sets the registers of an access so that each lane has eight bytes or more of its own; lost is a lane outside
// every region, or -1.
func (a *accessState) address(r *rand.Rand, i *Inst, lost int) {
	w := a.w
	const slot = 128
	order := r.Perm(w.lanes)
	at := func(l int) uint32 { return uint32(order[l]*slot + r.IntN(24)*4 + 16384) }
	switch i.Format {
	case DS:
		for l, x := range w.reg(i.Addr) {
			if w.reg(i.Addr)[l] = at(l); l == lost {
				w.reg(i.Addr)[l] = x | 0xff000000
			}
		}
	case SCRATCH:
		if i.SVE {
			for l := range w.reg(i.Addr) {
				if w.reg(i.Addr)[l] = uint32(r.IntN(64) * 4); l == lost {
					w.reg(i.Addr)[l] = 1 << 20
				}
			}
		}
		if i.SAddr != Null {
			w.s[i.SAddr] = uint32(r.IntN(32) * 4)
		}
	case MUBUF:
		w.setS64(i.SBase, testRegions[0]|uint64(r.IntN(2)*64)<<48)
		w.s[i.SBase+2] = uint32(r.IntN(1 << 14))
		w.s[i.SBase+3] = uint32(r.IntN(4)) << 28
		if i.SAddr < zero {
			w.s[i.SAddr] = uint32(r.IntN(64) * 4)
		}
		for l := range w.reg(i.Addr) {
			w.reg(i.Addr)[l] = uint32(order[l]*slot + r.IntN(16)*4)
		}
		if i.Idxen && i.Offen {
			for l := range w.reg(i.Addr) {
				w.reg(i.Addr)[l], w.reg(i.Addr + 1)[l] = uint32(order[l]), uint32(r.IntN(64)*4)
			}
		}
	case GLOBAL, FLAT:
		if i.Format == GLOBAL && i.SAddr != Null {
			w.setS64(i.SAddr, testRegions[r.IntN(3)])
			for l := range w.reg(i.Addr) {
				if w.reg(i.Addr)[l] = at(l); l == lost {
					w.reg(i.Addr)[l] = 1 << 30
				}
			}
			return
		}
		for l := range w.reg(i.Addr) {
			x := testRegions[r.IntN(3)] + uint64(at(l))
			if l == lost {
				x = 0x1234
			}
			w.reg(i.Addr)[l], w.reg(i.Addr + 1)[l] = uint32(x), uint32(x>>32)
		}
	}
}

// runs runs a form and returns the address that stopped it.
func (a *accessState) runs(run func(*Wave, *step), s *step) (fault *MemoryError) {
	defer func() {
		if r := recover(); r != nil {
			if err, ok := r.(error); !ok || !errors.As(err, &fault) {
				panic(r)
			}
		}
	}()
	run(a.w, s)
	return nil
}

// TestFastMemory runs every load and store that has a fast form in both forms: with all and some lanes, in several
// regions, and with a lane outside of them.
func TestFastMemory(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	seen, faults := map[string]int{}, 0
	instructionsOf(t, r, func(i *Inst) {
		if i.Format < DS || i.Format > MUBUF {
			return
		}
		s := prepare(i)
		if s == nil || s.plain == nil {
			return
		}
		seen[i.Op.Name]++
		for n := range 6 {
			exec := ^uint64(0)
			if n >= 2 {
				exec = r.Uint64()
			}
			lanes := 32 << (n & 1)
			if s.double != nil && s.double.store {
				exec = 1 << r.IntN(lanes) // the places of two lanes could be the same
			}
			a := newAccessState(r, lanes, exec)
			lost := -1
			if n >= 4 {
				lost = r.IntN(lanes)
			}
			a.address(r, i, lost)
			b := a.clone()
			want, got := a.runs(s.plain, s), b.runs(s.run, s)
			if (want == nil) != (got == nil) || want != nil && *want != *got {
				t.Fatalf("%s stops with %v, and not with %v", i, got, want)
			}
			if want != nil {
				faults++
				continue // a card does not say either which lanes have been done
			}
			if d := difference(i, b.w, a.w); d != "" {
				t.Errorf("%s with %d lanes and EXEC %#x: %s", i, lanes, exec, d)
			}
			for n := range a.data {
				if !bytes.Equal(a.data[n], b.data[n]) {
					t.Errorf("%s with %d lanes and EXEC %#x: memory differs", i, lanes, exec)
				}
			}
			if !bytes.Equal(a.w.group.lds, b.w.group.lds) || !bytes.Equal(a.w.scratch, b.w.scratch) {
				t.Errorf("%s with %d lanes and EXEC %#x: LDS or scratch differ", i, lanes, exec)
			}
		}
	})
	for _, op := range Ops() {
		access := strings.Contains(op.Name, "_load_") || strings.Contains(op.Name, "_store_")
		for _, other := range []string{"addtid", "format", "_lds_", "storexchg"} {
			access = access && !strings.Contains(op.Name, other)
		}
		if op.Format >= DS && access && seen[op.Name] == 0 {
			t.Errorf("no instruction has run the fast form of %s", op.Name)
		}
	}
	if faults == 0 {
		t.Error("no access was outside")
	}
	t.Logf("%d instructions, %d faults", len(seen), faults)
}
