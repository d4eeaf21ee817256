// Package goinference runs programs that use the go-inference module
// (forge.lthn.ai/core/go-inference, v0.1 line) on package rocm. Importing it registers the
// backend "rocm" there:
//
//	import (
//		"forge.lthn.ai/core/go-inference"
//		_ "forge.lthn.ai/core/go-rocm/contrib/goinference"
//	)
//
//	model, err := inference.LoadModel("model.gguf")
//
// The package only converts types. go-inference itself resolves the options, so its
// defaults apply. Errors pass unchanged, so that errors.Is and errors.As find those of
// package rocm. Model.ROCm returns the model with everything that the contract lacks. For
// the module's later line, whose methods return a core.Result, use the package in the
// directory result.
package goinference
