// Package result runs programs that use the later line of go-inference
// (dappco.re/go/inference), whose methods return a core.Result, on package rocm. Importing
// it registers the backend "rocm" there:
//
//	import (
//		"dappco.re/go/inference"
//		_ "forge.lthn.ai/core/go-rocm/contrib/goinference/result"
//	)
//
//	r := inference.LoadModel("model.gguf")
//	if !r.OK { ... r.Error() ... }
//	model := r.Value.(inference.TextModel)
//
// A failed Result has the error of package rocm as its Value, so that errors.Is and
// errors.As work on it. Options that llama-server does not support are rejected with
// rocm.ErrInvalidOption and never ignored silently, except for options that only trace or
// tune an engine, which have no effect.
package result
