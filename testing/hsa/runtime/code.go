//go:build linux && amd64

package main

// #include "runtime.h"
import "C"

import (
	"bytes"
	"debug/elf"
	"errors"
	"strings"
	"sync"
	"unsafe"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/testing/rdna3"
)

// A kernel is a kernel of a code object that is in the memory of a card.
type kernel struct {
	*rdna3.Kernel
	object string // the code object's rdna3.ObjectID; empty if the coverage is not recorded
}

// kernel returns the kernel whose descriptor is at an address, or nil.
func (c *card) kernel(descriptor uint64) *kernel {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kernels[descriptor]
}

// A symbol is a kernel or a variable of an executable.
type symbol struct {
	handle  uint64
	name    string
	address uint64
	size    uint64
	card    *card
	kernel  *kernel // nil for a variable
	fixed   bool    // the variable cannot be written
}

// An executable is a code object in the memory of a card.
type executable struct {
	frozen  bool
	memory  []*allocation
	symbols []*symbol
}

// objects has what the handles of code objects mean.
var objects struct {
	sync.Mutex
	last        uint64
	readers     map[uint64][]byte
	executables map[uint64]*executable
	symbols     map[uint64]*symbol
}

// handle returns a new handle. The objects are locked.
func handle() uint64 {
	if objects.last == 0 {
		objects.readers = map[uint64][]byte{}
		objects.executables = map[uint64]*executable{}
		objects.symbols = map[uint64]*symbol{}
	}
	objects.last++
	return objects.last
}

//export hsa_code_object_reader_create_from_memory
func hsa_code_object_reader_create_from_memory(code unsafe.Pointer, size uint64, out *uint64) status {
	if code == nil || size == 0 {
		return errArgument
	}
	objects.Lock()
	defer objects.Unlock()
	*out = handle()
	objects.readers[*out] = unsafe.Slice((*byte)(code), size)
	return success
}

//export hsa_code_object_reader_destroy
func hsa_code_object_reader_destroy(reader uint64) status {
	objects.Lock()
	defer objects.Unlock()
	delete(objects.readers, reader)
	return success
}

//export hsa_executable_create_alt
func hsa_executable_create_alt(profile, rounding uint32, options unsafe.Pointer, out *uint64) status {
	objects.Lock()
	defer objects.Unlock()
	*out = handle()
	objects.executables[*out] = &executable{}
	return success
}

//export hsa_executable_freeze
func hsa_executable_freeze(exec uint64, options unsafe.Pointer) status {
	objects.Lock()
	defer objects.Unlock()
	e := objects.executables[exec]
	switch {
	case e == nil:
		return errExecutable
	case e.frozen:
		return errFrozen
	}
	e.frozen = true
	return success
}

//export hsa_executable_destroy
func hsa_executable_destroy(exec uint64) status {
	objects.Lock()
	defer objects.Unlock()
	e := objects.executables[exec]
	if e == nil {
		return errExecutable
	}
	for _, s := range e.symbols {
		delete(objects.symbols, s.handle)
		if s.kernel != nil {
			s.card.mu.Lock()
			delete(s.card.kernels, s.address)
			s.card.mu.Unlock()
		}
	}
	for _, a := range e.memory {
		free(a.base)
	}
	delete(objects.executables, exec)
	return success
}

//export hsa_executable_load_agent_code_object
func hsa_executable_load_agent_code_object(exec, agent, reader uint64, options unsafe.Pointer, out *uint64) status {
	objects.Lock()
	defer objects.Unlock()
	e, code, c := objects.executables[exec], objects.readers[reader], cardOf(agent)
	switch {
	case e == nil:
		return errExecutable
	case e.frozen:
		return errFrozen
	case code == nil:
		return errCodeReader
	case c == nil:
		return errAgent
	}
	if err := e.load(c, agent, code); err != nil {
		logf("code object for %s: %v", c.target, err)
		if errors.Is(err, errOtherTarget) {
			return errIncompatible
		}
		return errCodeObject
	}
	if out != nil {
		*out = exec
	}
	return success
}

var errOtherTarget = errors.New("the code is for another target")

// load puts a code object into the memory of a card.
func (e *executable) load(c *card, agent uint64, code []byte) error {
	f, err := elf.NewFile(bytes.NewReader(code))
	if err != nil {
		return err
	}
	if err := checkTarget(c, code); err != nil {
		return err
	}
	var end uint64
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			end = max(end, p.Vaddr+p.Memsz)
		}
	}
	a, s := allocate(agent*poolsPerAgent+poolCoarse, end)
	if s != success {
		return errors.New(statusNames[s])
	}
	e.memory = append(e.memory, a)
	var elsewhere rdna3.Memory // the card's has the region already
	o, err := elsewhere.Load(code, a.base)
	if err != nil {
		return err
	}
	copy(a.data, o.Image)
	o.Image = a.data
	object := ""
	if coverage() != nil {
		object = rdna3.ObjectID(code)
	}
	syms, err := f.DynamicSymbols()
	if err != nil {
		return err
	}
	for _, s := range syms {
		e.define(c, f, o, object, s)
	}
	return nil
}

// checkTarget compares the target of a code object with the card's.
func checkTarget(c *card, code []byte) error {
	const version, flags = 8, 48
	if len(code) < flags+4 {
		return errors.New("the file is too short")
	}
	word := uint32(code[flags]) | uint32(code[flags+1])<<8 | uint32(code[flags+2])<<16 | uint32(code[flags+3])<<24
	id, err := gfx.FromELFFlags(word, code[version])
	if err != nil {
		return err
	}
	if string(id.Target) != c.target {
		return errOtherTarget
	}
	return nil
}

// define adds a symbol of a code object.
func (e *executable) define(c *card, f *elf.File, o *rdna3.Object, object string, from elf.Symbol) {
	if from.Section == elf.SHN_UNDEF || int(from.Section) >= len(f.Sections) {
		return
	}
	s := &symbol{handle: handle(), name: from.Name, address: o.Base + from.Value, size: from.Size, card: c}
	if name, ok := strings.CutSuffix(from.Name, ".kd"); ok {
		s.kernel = &kernel{o.Kernels[name], object}
		c.mu.Lock()
		c.kernels[s.address] = s.kernel
		c.mu.Unlock()
	} else if elf.ST_TYPE(from.Info) != elf.STT_OBJECT {
		return
	}
	s.fixed = s.kernel == nil && f.Sections[from.Section].Flags&elf.SHF_WRITE == 0
	e.symbols = append(e.symbols, s)
	objects.symbols[s.handle] = s
}

//export hostAddress
func hostAddress(device unsafe.Pointer, host *unsafe.Pointer) status {
	heap.Lock()
	defer heap.Unlock()
	if find(uint64(uintptr(device))) == nil {
		return errArgument
	}
	*host = device
	return success
}
