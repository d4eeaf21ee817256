package rdna3

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// A Dispatch starts a kernel on a grid.
type Dispatch struct {
	Kernel  *Kernel
	Group   [3]uint32 // work items of a group in each dimension
	Grid    [3]uint32 // work items in each dimension
	Kernarg uint64    // address of the arguments
	Packet  uint64    // address of the dispatch packet, for kernels that read it
	Queue   uint64    // address of the queue
	LDS     uint32    // bytes in addition to what the kernel has
	Limit   uint64    // instructions that a wave may run; 0 for no limit
	Workers int       // groups that run at the same time; 0 for one a processor
}

// Stats counts what a dispatch ran.
type Stats struct {
	Groups, Waves, Instructions uint64
	Lanes                       uint64 // vector instructions times lanes
}

// ErrLimit is the error of a wave that does not end.
var ErrLimit = errors.New("the wave has run as many instructions as it may")

// errStuck is the error of a group whose waves neither run nor wait for each other.
var errStuck = errors.New("no wave of the group can go on")

// group is a work group that runs.
type group struct {
	d    *Dispatch
	mem  *Memory
	lds  []byte
	id   [3]uint32
	wave []*Wave
}

// Limits of a dispatch.
const (
	maxGroup = 1024    // work items of a group
	maxLDS   = 1 << 16 // bytes of a group
)

// A DispatchError reports a dispatch that no card would start.
type DispatchError struct{ Reason string }

// Error implements error.
func (e *DispatchError) Error() string { return "invalid dispatch: " + e.Reason }

// check returns what is wrong with the sizes of a dispatch.
func (d *Dispatch) check() error {
	items := uint64(d.Group[0]) * uint64(d.Group[1]) * uint64(d.Group[2])
	switch lds := uint64(d.Kernel.LDS) + uint64(d.LDS); {
	case items == 0 || items > maxGroup || d.Group[0] > maxGroup || d.Group[1] > maxGroup || d.Group[2] > maxGroup:
		return &DispatchError{fmt.Sprintf("groups of %v work items; 1 to %d are possible", d.Group, maxGroup)}
	case lds > maxLDS:
		return &DispatchError{fmt.Sprintf("%d bytes of LDS; %d are possible", lds, maxLDS)}
	}
	return nil
}

// Run runs a dispatch to its end. It stops at the first [Fault], and when ctx is done: then the error is a Fault as
// well, which says where a wave was and unwraps to the error of ctx.
func (m *Memory) Run(ctx context.Context, d *Dispatch) (Stats, error) {
	if err := d.check(); err != nil {
		return Stats{}, err
	}
	var counts [3]uint32
	total := uint64(1)
	for n := range counts {
		counts[n] = uint32((uint64(d.Grid[n]) + uint64(d.Group[n]) - 1) / uint64(d.Group[n]))
		total *= uint64(counts[n])
	}
	workers := d.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	workers = int(min(uint64(workers), total))
	var (
		next  atomic.Uint64
		stats = make([]Stats, workers)
		errs  = make([]error, workers)
		wg    sync.WaitGroup
	)
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	for n := range workers {
		wg.Go(func() {
			// Memory that the host has unmapped is an error of the kernel, and no crash.
			defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
			g := newGroup(m, d)
			defer g.release()
			for at := next.Add(1) - 1; at < total && running.Err() == nil; at = next.Add(1) - 1 {
				g.id = [3]uint32{
					uint32(at % uint64(counts[0])), uint32(at / uint64(counts[0]) % uint64(counts[1])),
					uint32(at / uint64(counts[0]) / uint64(counts[1])),
				}
				if errs[n] = g.run(running, d.Kernel.program, &stats[n]); errs[n] != nil {
					cancel()
					return
				}
			}
		})
	}
	wg.Wait()
	var sum Stats
	for _, s := range stats {
		sum.Groups += s.Groups
		sum.Waves += s.Waves
		sum.Instructions += s.Instructions
		sum.Lanes += s.Lanes
	}
	for _, err := range errs {
		// Groups that were stopped because another one failed do not count.
		if err != nil && (ctx.Err() != nil || !errors.Is(err, context.Canceled)) {
			return sum, err
		}
	}
	return sum, ctx.Err()
}

// waves has waves that no dispatch uses, of 32 and of 64 lanes.
var waves = map[int]*sync.Pool{
	32: {New: func() any { return newWave(32) }},
	64: {New: func() any { return newWave(64) }},
}

// newGroup returns a group with the waves and the LDS of a dispatch, for all groups of one worker.
func newGroup(m *Memory, d *Dispatch) *group {
	k := d.Kernel
	g := &group{d: d, mem: m, lds: make([]byte, k.LDS+d.LDS)}
	items := int(d.Group[0] * d.Group[1] * d.Group[2])
	for range (items + k.Lanes - 1) / k.Lanes {
		w, _ := waves[k.Lanes].Get().(*Wave) // the pool has nothing else
		w.group, w.scratchSize = g, int(k.Scratch)
		w.scratch = make([]byte, w.scratchSize*w.lanes)
		g.wave = append(g.wave, w)
	}
	return g
}

// release gives the waves back.
func (g *group) release() {
	for _, w := range g.wave {
		w.group, w.scratch, w.near = nil, nil, [nearby]*Region{}
		waves[w.lanes].Put(w)
	}
}

// size returns the work items of this group in a dimension: the last one may be smaller.
func (g *group) size(n int) uint32 {
	return min(g.d.Group[n], g.d.Grid[n]-g.id[n]*g.d.Group[n])
}

// run runs all waves of a group in turns.
func (g *group) run(ctx context.Context, p *Program, stats *Stats) error {
	clear(g.lds)
	sizes := [3]uint32{g.size(0), g.size(1), g.size(2)}
	items := int(sizes[0] * sizes[1] * sizes[2])
	waves := g.wave[:(items+g.d.Kernel.Lanes-1)/g.d.Kernel.Lanes]
	for n, w := range waves {
		w.start(n, sizes)
	}
	for {
		running, waiting, went := 0, 0, false
		for _, w := range waves {
			if !w.ended && !w.waiting {
				went = true
				if err := g.turn(ctx, p, w); err != nil {
					return err
				}
			}
			switch {
			case w.waiting:
				waiting++
				running++
			case !w.ended:
				running++
			}
		}
		switch {
		case running == 0:
			for _, w := range waves {
				stats.Instructions += w.executed
				stats.Lanes += w.vectors * uint64(w.lanes)
			}
			stats.Groups++
			stats.Waves += uint64(len(waves))
			return nil
		case waiting == running:
			for _, w := range waves {
				w.waiting = false
			}
		case !went:
			return errStuck
		}
	}
}

// turnLength is how many instructions a wave runs before the next one has its turn. Waves that wait for each other
// in a loop go on this way.
const turnLength = 1 << 16

// turn runs a wave, and returns what stopped it as a Fault.
func (g *group) turn(ctx context.Context, p *Program, w *Wave) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = p.fault(g.d.Kernel.Name, w.at, panicError(r))
		} else if err != nil {
			err = p.fault(g.d.Kernel.Name, w.pc, err)
		}
	}()
	if err := ctx.Err(); err != nil {
		return err
	}
	if g.d.Limit != 0 && w.executed >= g.d.Limit {
		return ErrLimit
	}
	return w.run(p, turnLength)
}

// panicError returns what stopped an instruction. Anything but an error is a defect of the interpreter.
func panicError(r any) error {
	if f, ok := r.(interface{ Addr() uintptr }); ok {
		return &MemoryError{Addr: uint64(f.Addr()), Size: 1}
	}
	err, ok := r.(error)
	if !ok {
		panic(r)
	}
	return err
}

// start sets the registers of a wave as the packet processor does.
func (w *Wave) start(n int, sizes [3]uint32) {
	g, k := w.group, w.group.d.Kernel
	clear(w.s[:])
	clear(w.v[:k.vgprs*w.lanes])
	clear(w.scratch)
	w.scc, w.ended, w.waiting, w.executed, w.vectors = false, false, false, 0, 0
	w.pc = k.Entry
	w.setMode(k.mode)
	at := Reg(0)
	add := func(words ...uint32) {
		for _, x := range words {
			w.s[at] = x
			at++
		}
	}
	add64 := func(x uint64) { add(uint32(x), uint32(x>>32)) }
	for _, u := range k.user {
		switch u {
		case userBuffer:
			add(0, 0, 0, 0)
		case userPacket:
			add64(g.d.Packet)
		case userQueue:
			add64(g.d.Queue)
		case userKernarg:
			add64(g.d.Kernarg)
		case userDispatchID, userFlatScratch:
			add64(0)
		case userScratchSize:
			add(k.Scratch)
		}
	}
	at = Reg(k.userCount)
	for dim, wanted := range k.groupIDs {
		if wanted {
			add(g.id[dim])
		}
	}
	var exec uint64
	items := int(sizes[0] * sizes[1] * sizes[2])
	for l := range w.lanes {
		item := uint32(n*w.lanes + l)
		if int(item) >= items {
			break
		}
		exec |= 1 << l
		x, y, z := item%sizes[0], item/sizes[0]%sizes[1], item/sizes[0]/sizes[1]
		w.v[l] = x | y<<10 | z<<20
	}
	w.setExec(exec)
}

// PacketSize is the size of a dispatch packet.
const PacketSize = 64

// AppendPacket appends the AQL packet of the dispatch, which kernels may read.
func (d *Dispatch) AppendPacket(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(b, 2) // kernel dispatch
	b = le.AppendUint16(b, 3)
	for _, x := range d.Group {
		b = le.AppendUint16(b, uint16(x))
	}
	b = le.AppendUint16(b, 0)
	for _, x := range d.Grid {
		b = le.AppendUint32(b, x)
	}
	b = le.AppendUint32(b, d.Kernel.Scratch)
	b = le.AppendUint32(b, d.Kernel.LDS+d.LDS)
	b = le.AppendUint64(b, d.Kernel.Descriptor)
	b = le.AppendUint64(b, d.Kernarg)
	return append(b, make([]byte, 16)...)
}
