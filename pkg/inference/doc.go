// Package inference is the contract between programs that use a language model and
// the backends that run models.
//
// It restates the v0.1 line of go-inference, name for name, so that a program
// written against that module compiles against this package by changing the
// import path alone. A backend (for example package rocm) registers itself from its
// init function, and the program loads a model by its path:
//
//	import (
//		"forge.lthn.ai/core/go-rocm/pkg/inference"
//		_ "forge.lthn.ai/core/go-rocm"
//	)
//
//	m, err := inference.LoadModel("/models/gemma.gguf")
//	if err != nil { ... }
//	defer m.Close()
//	for tok := range m.Generate(ctx, "Once upon a time", inference.WithMaxTokens(64)) {
//		fmt.Print(tok.Text)
//	}
//	if err := m.Err(); err != nil { ... }
//
// The package runs no model and opens no socket. Its only state is the registry of
// backends, which is safe for concurrent use.
package inference
