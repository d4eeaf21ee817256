// Package goinference lets programs that are written against the go-inference
// module (forge.lthn.ai/core/go-inference, v0.1 line) run on package rocm. Importing
// it registers the backend "rocm" there:
//
//	import (
//		"forge.lthn.ai/core/go-inference"
//		_ "forge.lthn.ai/core/go-rocm/contrib/goinference"
//	)
//
//	model, err := inference.LoadModel("model.gguf")
//
// It translates types and adds nothing: options are resolved by go-inference
// itself, so that its defaults hold, and errors pass through unchanged, so that
// errors.Is and errors.As see those of package rocm. What goes beyond the contract is
// reached by Model.ROCm. The module's later line, whose methods return a
// core.Result, is served by the package in the directory result.
package goinference
