//go:build linux && amd64

package main

// #include <stdlib.h>
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"unsafe"
)

// A status is the result of an HSA function.
type status = uint32

const (
	success           status = 0
	statusBreak       status = 1
	errGeneral        status = 0x1000
	errArgument       status = 0x1001
	errAllocation     status = 0x1003
	errAgent          status = 0x1004
	errSignal         status = 0x1006
	errResources      status = 0x1008
	errPacket         status = 0x1009
	errISA            status = 0x100f
	errCodeObject     status = 0x1010
	errExecutable     status = 0x1011
	errFrozen         status = 0x1012
	errSymbolName     status = 0x1013
	errException      status = 0x1016
	errSymbol         status = 0x1019
	errPool           status = 40
	errIllegal        status = 42
	errMemoryFault    status = 43
	errQueueCreation  status = 0x1002
	errCodeReader     status = 0x1021
	errIncompatible   status = 0x100d
	errNotInitialized status = 0x100b
)

// statusNames has the names that users and llama.cpp's logs know.
var statusNames = map[status]string{
	success: "HSA_STATUS_SUCCESS", statusBreak: "HSA_STATUS_INFO_BREAK", errGeneral: "HSA_STATUS_ERROR",
	errArgument: "HSA_STATUS_ERROR_INVALID_ARGUMENT", errQueueCreation: "HSA_STATUS_ERROR_INVALID_QUEUE_CREATION",
	errAllocation: "HSA_STATUS_ERROR_INVALID_ALLOCATION", errAgent: "HSA_STATUS_ERROR_INVALID_AGENT",
	errSignal: "HSA_STATUS_ERROR_INVALID_SIGNAL", errResources: "HSA_STATUS_ERROR_OUT_OF_RESOURCES",
	errPacket: "HSA_STATUS_ERROR_INVALID_PACKET_FORMAT", errISA: "HSA_STATUS_ERROR_INVALID_ISA",
	errCodeObject: "HSA_STATUS_ERROR_INVALID_CODE_OBJECT", errExecutable: "HSA_STATUS_ERROR_INVALID_EXECUTABLE",
	errFrozen: "HSA_STATUS_ERROR_FROZEN_EXECUTABLE", errSymbolName: "HSA_STATUS_ERROR_INVALID_SYMBOL_NAME",
	errException: "HSA_STATUS_ERROR_EXCEPTION", errSymbol: "HSA_STATUS_ERROR_INVALID_EXECUTABLE_SYMBOL",
	errPool: "HSA_STATUS_ERROR_INVALID_MEMORY_POOL", errIllegal: "HSA_STATUS_ERROR_ILLEGAL_INSTRUCTION",
	errMemoryFault: "HSA_STATUS_ERROR_MEMORY_FAULT", errCodeReader: "HSA_STATUS_ERROR_INVALID_CODE_OBJECT_READER",
	errIncompatible: "HSA_STATUS_ERROR_INCOMPATIBLE_ARGUMENTS", errNotInitialized: "HSA_STATUS_ERROR_NOT_INITIALIZED", //nolint:misspell // AMD's name
}

var statusTexts struct {
	sync.Mutex
	c map[status]*C.char
}

//export hsa_status_string
func hsa_status_string(s status, out **C.char) status {
	name, ok := statusNames[s]
	if !ok {
		return errArgument
	}
	statusTexts.Lock()
	defer statusTexts.Unlock()
	if statusTexts.c == nil {
		statusTexts.c = map[status]*C.char{}
	}
	if statusTexts.c[s] == nil {
		statusTexts.c[s] = C.CString(name)
	}
	*out = statusTexts.c[s]
	return success
}

// put writes a value where an information function was asked to.
func put[T any](p unsafe.Pointer, v T) status {
	*(*T)(p) = v
	return success
}

// putString writes a text that ends with a zero.
func putString(p unsafe.Pointer, s string) status {
	b := unsafe.Slice((*byte)(p), len(s)+1)
	b[copy(b, s)] = 0
	return success
}

func logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "emulated card: "+format+"\n", args...)
}

var said sync.Map

// missing reports, once for each function, that the function that calls it is not implemented.
func missing() status {
	pc, _, _, _ := runtime.Caller(1)
	name := runtime.FuncForPC(pc).Name()
	name = name[strings.LastIndexByte(name, '.')+1:]
	return notImplemented(name)
}

// notImplemented reports, once for each name, that something is not implemented.
func notImplemented(name string) status {
	if _, again := said.LoadOrStore(name, true); !again {
		logf("%s is not implemented", name)
	}
	return errGeneral
}
