// Package result lets programs that are written against the later line of
// go-inference (dappco.re/go/inference), whose methods give a core.Result, run
// on package rocm. Importing it registers the backend "rocm" there:
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
// A failed Result carries the error of package rocm in its Value, so that errors.Is
// and errors.As work on it. An option that llama-server has no means for is
// refused with rocm.ErrInvalidOption and never passed over in silence; options that only
// trace or tune an engine are none of these and have no effect.
package result
