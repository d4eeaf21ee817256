//go:build linux && amd64

package main

// #include <stdlib.h>
// #include "runtime.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unsafe"

	"forge.lthn.ai/core/go-rocm/testing/rdna3"
)

// Types of packets.
const (
	packetVendor   = 0
	packetInvalid  = 1
	packetDispatch = 2
	packetAnd      = 3
	packetOr       = 5
)

// A dispatchPacket starts a kernel.
type dispatchPacket struct {
	header, setup uint16
	group         [3]uint16
	_             uint16
	grid          [3]uint32
	private, lds  uint32
	kernel        uint64
	kernarg       uint64
	_             uint64
	signal        uint64
}

// A barrierPacket waits for signals.
type barrierPacket struct {
	_      uint64
	wait   [5]uint64
	_      uint64
	signal uint64
}

// A valuePacket waits for the value of one signal. It is AMD's.
type valuePacket struct {
	header      uint16
	format      uint8
	_           uint8
	_           uint32
	on          uint64
	value, mask int64
	condition   uint32
	_           uint32
	_           [2]uint64
	signal      uint64
}

// packet runs one packet to its end. Packets run one after the other, so that the barrier bit has no meaning.
func (q *queue) packet(p unsafe.Pointer) status {
	start := uint64(C.nanoseconds())
	switch C.load_header(p) & 0xff {
	case packetDispatch:
		d := (*dispatchPacket)(p)
		if s := q.dispatch(d); s != success {
			return s
		}
		complete(d.signal, start)
	case packetAnd:
		b := (*barrierPacket)(p)
		for _, signal := range b.wait {
			if signal != 0 {
				wait(signal, equal, 0, everyBit, q.closed)
			}
		}
		complete(b.signal, start)
	case packetOr:
		b := (*barrierPacket)(p)
		q.waitAny(b.wait[:])
		complete(b.signal, start)
	case packetVendor:
		v := (*valuePacket)(p)
		const waitsForValue = 2
		if v.format != waitsForValue {
			return notImplemented(fmt.Sprintf("AMD's packet of format %d", v.format))
		}
		wait(v.on, v.condition, v.value, v.mask, q.closed)
		complete(v.signal, start)
	default:
		return errPacket
	}
	return success
}

// waitAny waits until one of the signals is zero.
func (q *queue) waitAny(signals []uint64) {
	stop, zero := make(chan struct{}), make(chan struct{}, len(signals))
	defer close(stop)
	waits := false
	for _, signal := range signals {
		if signal != 0 {
			waits = true
			go func() {
				wait(signal, equal, 0, everyBit, stop)
				zero <- struct{}{}
			}()
		}
	}
	if waits {
		select {
		case <-zero:
		case <-q.closed:
		}
	}
}

// dispatch runs a kernel, and returns the status that the queue stops with.
func (q *queue) dispatch(p *dispatchPacket) status {
	loaded := q.card.kernel(p.kernel)
	if loaded == nil {
		logf("a packet starts a kernel at %#x, where none is", p.kernel)
		return errCodeObject
	}
	k := *loaded.Kernel
	k.Scratch = max(k.Scratch, p.private)
	d := &rdna3.Dispatch{
		Kernel: &k, Kernarg: p.kernarg, Grid: p.grid,
		Packet: uint64(uintptr(unsafe.Pointer(p))), Queue: uint64(uintptr(unsafe.Pointer(q.c))),
	}
	if p.lds > k.LDS {
		d.LDS = p.lds - k.LDS
	}
	for n, size := range p.group {
		if size == 0 || p.grid[n] == 0 {
			logf("the packet for %s has no work items: %v in groups of %v", k.Name, p.grid, p.group)
			return errPacket
		}
		d.Group[n] = uint32(size)
	}
	if items := d.Group[0] * d.Group[1] * d.Group[2]; items > mostItems || p.lds > ldsBytes {
		logf("the packet for %s asks for %d work items in a group and %d bytes of LDS", k.Name, items, p.lds)
		return errPacket
	}
	ctx := context.Background()
	if after := resetAfter(); after > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, after)
		defer cancel()
	}
	started := time.Now()
	stats, err := q.card.memory.Run(ctx, d)
	if err != nil {
		return q.fault(err)
	}
	report(q.card, d, stats, time.Since(started))
	coverage().add(q.card.target, loaded.object, k.Name)
	return success
}

// envReset names the variable with the time after which the kernel driver resets a card whose kernel does not end, such as
// 5s. Without it there is no reset.
const envReset = "GOROCM_EMULATED_RESET"

// resetAfter returns the time of envReset, or 0.
var resetAfter = sync.OnceValue(func() time.Duration {
	after, err := time.ParseDuration(os.Getenv(envReset))
	if err != nil && os.Getenv(envReset) != "" {
		logf("%s: %v", envReset, err)
	}
	return after
})

// envReport names the variable with the files, with colons between them, that get a line for each dispatch.
const envReport = "GOROCM_EMULATED_REPORT"

// reports has the files for the lines.
var reports = sync.OnceValue(func() (out []*os.File) {
	for _, path := range filepath.SplitList(os.Getenv(envReport)) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			logf("%v", err)
			continue
		}
		out = append(out, f)
	}
	return out
})

// report writes what a dispatch ran to its end: target, kernel, groups, instructions, lane-instructions and microseconds.
func report(c *card, d *rdna3.Dispatch, s rdna3.Stats, spent time.Duration) {
	line := fmt.Sprintln(c.target, d.Kernel.Name, s.Groups, s.Instructions, s.Lanes, spent.Microseconds())
	for _, f := range reports() {
		if _, err := f.WriteString(line); err != nil {
			logf("%v", err)
		}
	}
}

// fault reports what stopped a kernel as the ROCm runtime does it.
func (q *queue) fault(err error) status {
	logf("%v", err)
	var memory *rdna3.MemoryError
	var unknown *rdna3.UnknownError
	switch {
	case errors.As(err, &memory):
		fmt.Fprintf(os.Stderr, "Memory access fault by GPU node-%d (Agent handle: %#x) on address %#x. Reason: Page not present or supervisor privilege.\n",
			q.card.node, q.card.agent(), memory.Addr&^(pageSize-1))
		C.abort()
	case errors.Is(err, context.DeadlineExceeded):
		fmt.Fprintf(os.Stderr, "HW Exception by GPU node-%d (Agent handle: %#x) reason :GPU Hang\n", q.card.node, q.card.agent())
		C.abort()
	case errors.As(err, &unknown), errors.Is(err, rdna3.ErrNotImplemented), errors.Is(err, rdna3.ErrOutside):
		return errIllegal
	}
	return errException
}
