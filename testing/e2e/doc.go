// Package e2e holds the end-to-end tests: real bundles, real models, separate
// programs, a real client library. They prove what no part can prove alone,
// that a user who follows the README gets a right answer.
//
// The tests stand behind the build tag e2e and are started by `mage test`,
// which hands them what it built:
//
//	GOROCM_BUNDLE        the packed cpu bundle, or the folder of an unpacked one
//	GOROCM_HIP_BUNDLE    the packed hip bundle
//	GOROCM_LLAMA_SOURCE  the llama.cpp source, for the tokenizers of tiny models
//	GOROCM_CLI           the go-rocm command; built from the tree when unset
//
// Nothing is skipped: what is missing fails, and says how to get it. No GPU is
// needed, and none is used: the hip bundle has to come up without one.
package e2e
