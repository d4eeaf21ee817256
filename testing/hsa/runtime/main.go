//go:build linux && amd64 && cgo

// Command runtime is libhsa-runtime64.so.1 for tests: the HSA functions that the
// HIP runtime of the bundle calls, on an emulated card. It is built with
// -buildmode=c-shared and replaces the file of that name in a copy of the bundle;
// package hsa does both. It is part of no package.
//
// The cards are named by the variable GOROCM_EMULATED_CARDS, with their targets:
// "gfx1100", "gfx1101" or "gfx1100,gfx1101". The first is the default. The files that
// GOROCM_EMULATED_REPORT names get a line for each dispatch, those that
// GOROCM_EMULATED_COVERAGE names one for each kernel.
//
// # How it works
//
// Memory of a card is memory of the process, at the same address, so that kernels,
// copies and the HIP runtime see the same bytes. Each card reaches only what it
// owns and what was made accessible to it. A queue is a goroutine that reads
// packets when its doorbell is written; package rdna3 runs the dispatches on all
// processors. A copy engine is a goroutine for each direction, in order, as HIP
// expects it.
//
// What stops a kernel is reported as the ROCm runtime does it: a memory fault ends
// the process with the kernel driver's message, anything else goes to the callback
// of the queue. The kernel, the address and the instruction are on stderr before.
//
// The functions that are called most, and calls of C functions, are in runtime.c.
// The rest is Go, because the interpreter is.
package main

func main() {}
