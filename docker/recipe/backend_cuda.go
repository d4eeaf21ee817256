package recipe

import (
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// cuda is NVIDIA's CUDA, from Debian's non-free packages. libcuda.so.1 is the host's, as a part of the
// driver; without CUDA's virtual memory management the module is not linked with it.
var cuda = Backend{
	Name: "cuda",
	Set:  toolchain.Set{Name: "cuda", Extra: "nvidia-cuda-toolkit", Areas: "contrib non-free", Download: "2 GB"},
	Options: func([]gfx.Target) []Option {
		return []Option{
			{Name: "GGML_CUDA", Value: "ON"},
			{Name: "GGML_CUDA_NCCL", Value: "OFF", IfKnown: true},
			{Name: "GGML_CUDA_NO_VMM", Value: "ON"},
			// Turing, Ampere, Ada. The driver compiles the intermediate code of the last for newer cards.
			{Name: "CMAKE_CUDA_ARCHITECTURES", Value: "75-real;86-real;89"},
		}
	},
	Opened: []elfdep.Decision{
		{Name: "libcuda.so.*", In: "libcudart.so.*", Reason: "a part of the host's driver, whose version is that of its kernel module"},
	},
	Devices:  "libcuda.so.1 of the host's NVIDIA driver, in the directories of its ld.so.cache",
	Untested: "the module was never compiled, and no NVIDIA card was at hand",
}
