// Package ggufgen writes GGUF files for tests: small models with seeded random
// weights and a real tokenizer that llama.cpp loads and runs, and sparse files
// that have the true shapes of large models and no data.
//
// It exists because tests must run real programs on real formats without
// shipping or fetching models. The bytes depend on the inputs and the seed
// alone. The models it makes say nothing sensible, and it does not quantise.
package ggufgen
