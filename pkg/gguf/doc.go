// Package gguf reads the header of a GGUF model file: the metadata, the tensor table
// and properties derived from them (architecture, sizes, quantisation, parameter
// count, tokenizer).
//
// Every decision before a model is loaded (whether it fits, how many layers, which
// template) needs this information within about a millisecond and without trusting
// the file. The reader therefore keeps only scalars, strings and the tensor table.
// It checks the extent of arrays (a vocabulary has hundreds of thousands of
// entries) and reads their elements from the file on demand.
//
// The reader compares every length in the file with the remaining bytes before it
// allocates, and checks products for overflow. The tensor table must describe the
// data section exactly: in order, aligned, without gaps, and within the file.
// llama.cpp accepts a file under the same conditions.
//
// The package supports versions 2 and 3, little-endian. It does not read tensor data
// and does not write files.
package gguf
