// Package rocm runs llama.cpp's llama-server on AMD GPUs (RDNA 3), as a supervised
// child process, and is the inference backend "rocm".
//
// Use [Model.Stream] when several goroutines share a model: each [Stream] has its
// own error, metrics and end. The Err and Metrics methods of the contract report
// on whichever operation ended last.
//
// # Loading a model
//
// Importing the package registers the backend with pkg/inference:
//
//	import (
//		"forge.lthn.ai/core/go-rocm/pkg/inference"
//		_ "forge.lthn.ai/core/go-rocm"
//	)
//
//	model, err := inference.LoadModel("model.gguf")
//
// [Backend.Load] does the same with [Settings], which have more options than the
// contract. The zero value of every setting is its default.
//
// # Beyond the contract
//
// A *[Model] also implements [Tokenizer], [Embedder], [Reranker], [SlotStore],
// [AdapterController] and [Multimodal]. A [Request] has more options than the
// contract's, such as grammars, seeds and stop texts. [Launch] starts a
// llama-server without a model around it, for programs that speak its HTTP API.
//
// # Several models
//
// A [Pool] has models by name. [Pool.Acquire] loads a model when it is asked for, if
// the memory of the cards and of the host has room for it, and returns a [Lease].
// Models without a lease are unloaded when another model needs their memory.
//
// # Failures
//
// A llama-server that crashes or hangs is restarted. Requests that were running end
// with the cause, for example a *supervise.ExitError; later requests wait for the
// new process. Five failures in a row end the model with supervise.ErrCrashLoop; see
// [Restart]. A new process has the scales of [Model.SetAdapters]; its slots and its
// prompt cache are empty.
//
// Errors wrap [ErrInvalidOption], [ErrPromptTooLong], [ErrClosed] and others. When
// a context ends an operation, the error wraps the context's own error and its
// cause. [Stream.FinishReason] says why a generation ended.
//
// # What the package does
//
// Load finds the bundle with llama-server (runtime/locate), reads the GPUs, the
// memory and the model's header (runtime/machine), plans what runs where
// (runtime/plan), starts the child (runtime/supervise) and speaks its HTTP API
// (pkg/llamaapi). A GPU driver that crashes ends the child process and not the
// program.
//
// The package runs on linux/amd64. On other platforms the backend is registered
// and reports that it is not available.
package rocm
