// Package rdna3 decodes, prints and interprets the instructions of AMD's RDNA 3 (gfx1100 and gfx1101), so that the GPU
// code that ships runs where no such card is.
//
//   - [Decode] reads an instruction, and [Inst.String] prints it as LLVM does.
//   - [Memory.Load] loads a code object, and [Memory.Run] runs a [Dispatch] of one of its kernels on a grid.
//   - Package survey counts the instructions of files and compares their disassembly.
//
// table.txt has the instructions with the number formats of their operands. It and the vectors that prove the
// operations come from the facts that AMD publishes; the generators beside them name the source.
//
// A wave runs its instructions in order and sees its own accesses at once, so that waits do nothing. Waves of a group
// take turns; groups run on all processors. What a kernel does wrong, an access outside memory or an instruction
// without code here, stops the dispatch with a [Fault] that names kernel, address and encoding.
//
// # Where results may differ from a card's
//
// Reciprocals, roots, exponentials, logarithms, sines and cosines are rounded from float64; a card's may differ in the
// last bit. The matrix instructions sum in float64 and round once, where a card rounds in between.
package rdna3
