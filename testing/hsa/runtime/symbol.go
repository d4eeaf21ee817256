//go:build linux && amd64

package main

// #include "runtime.h"
import "C"

import "unsafe"

//export hsa_executable_get_symbol_by_name
func hsa_executable_get_symbol_by_name(exec uint64, name *C.char, agent *uint64, out *uint64) status {
	objects.Lock()
	defer objects.Unlock()
	e := objects.executables[exec]
	if e == nil {
		return errExecutable
	}
	wanted := C.GoString(name)
	for _, s := range e.symbols {
		if s.name == wanted && (agent == nil || *agent == s.card.agent()) {
			*out = s.handle
			return success
		}
	}
	return errSymbolName
}

//export hsa_executable_iterate_symbols
func hsa_executable_iterate_symbols(exec uint64, callback, data unsafe.Pointer) status {
	objects.Lock()
	e := objects.executables[exec]
	objects.Unlock()
	if e == nil {
		return errExecutable
	}
	for _, s := range e.symbols {
		if got := status(C.call_symbol(callback, C.uint64_t(exec), C.uint64_t(s.handle), data)); got != success {
			return got
		}
	}
	return success
}

//export hsa_executable_symbol_get_info
func hsa_executable_symbol_get_info(handle uint64, attribute uint32, value unsafe.Pointer) status {
	objects.Lock()
	s := objects.symbols[handle]
	objects.Unlock()
	if s == nil {
		return errSymbol
	}
	switch attribute {
	case 0: // 0 for a variable, 1 for a kernel
		kind := uint32(0)
		if s.kernel != nil {
			kind = 1
		}
		return put(value, kind)
	case 1:
		return put(value, uint32(len(s.name)))
	case 2:
		copy(unsafe.Slice((*byte)(value), len(s.name)), s.name)
		return success
	case 5: // visible to the program
		return put(value, uint32(1))
	case 17:
		return put(value, true)
	case 20:
		return put(value, s.card.agent())
	}
	if s.kernel != nil {
		return s.kernelInfo(attribute, value)
	}
	switch attribute {
	case 6, 7: // an allocation of the agent, in the global segment
		return put(value, uint32(0))
	case 9:
		return put(value, uint32(s.size))
	case 10:
		return put(value, s.fixed)
	case 21:
		return put(value, s.address)
	}
	return errArgument
}

func (s *symbol) kernelInfo(attribute uint32, value unsafe.Pointer) status {
	switch attribute {
	case 11:
		return put(value, s.kernel.ArgBytes)
	case 12:
		const alignment = 16
		return put(value, uint32(alignment))
	case 13:
		return put(value, s.kernel.LDS)
	case 14:
		return put(value, s.kernel.Scratch)
	case 15: // the size of the stack is known
		return put(value, false)
	case 18:
		return put(value, uint32(0))
	case 22:
		return put(value, s.address)
	}
	return errArgument
}
