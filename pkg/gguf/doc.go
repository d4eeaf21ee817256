// Package gguf reads the facts of a GGUF model file: its metadata, its tensor
// table and what follows from the two (architecture, sizes, quantisation,
// parameter count, tokenizer kind).
//
// It exists because every decision before a model is loaded (does it fit, how
// many layers, which template) needs those facts in about a millisecond and
// without trusting the file. So the reader keeps only scalars, strings and the
// tensor table; arrays (a vocabulary has hundreds of thousands of entries) are
// checked for their extent and left in the file until they are asked for.
//
// Every length that the file states is compared with the bytes that are left
// before anything is allocated, products are checked for overflow, and the
// tensor table must describe the data section exactly: in order, aligned,
// without gaps, and within the file. These are the conditions under which
// llama.cpp itself accepts a file.
//
// Versions 2 and 3, little-endian, are read. It does not read tensor data, does
// not write files and knows nothing about devices.
package gguf
