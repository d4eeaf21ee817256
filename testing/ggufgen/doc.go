// Package ggufgen writes GGUF files for tests: small models with seeded random weights and a real
// tokenizer that llama.cpp loads and runs, and sparse files that have the real shapes of large
// models and no data.
//
// With it, tests run real programs on real formats without shipping or downloading models. The
// bytes depend only on the inputs and the seed. The models generate meaningless text. The package
// does not quantise.
package ggufgen
