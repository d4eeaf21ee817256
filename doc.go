// Package rocm is the inference backend "rocm": llama.cpp's llama-server on AMD
// GPUs (RDNA 3), run as a supervised child process.
//
// Importing it registers the backend:
//
//	import (
//		"forge.lthn.ai/core/go-rocm/pkg/inference"
//		_ "forge.lthn.ai/core/go-rocm"
//	)
//
//	model, err := inference.LoadModel("model.gguf")
//
// It is the only place where everything on the run side meets: the bundle
// (found, or unpacked from this program), the GPUs, the model's header, the plan
// made from both, the supervisor and the HTTP client. A GPU driver that crashes
// takes the child process along and not the program.
//
// What goes beyond the contract of pkg/inference is offered beside it: Backend.Load
// takes Settings, Model.Stream takes a Request and gives a handle with its own
// error and metrics for concurrent callers, and *Model implements Tokenizer,
// Embedder, Reranker, SlotKeeper, AdapterSwitcher and Multimodal.
//
// The package decides nothing about memory (runtime/plan does), knows no wire
// format (pkg/llamaapi does) and no processes (runtime/supervise does). It runs
// on linux/amd64; elsewhere the backend is registered and says that it is not
// available.
package rocm
