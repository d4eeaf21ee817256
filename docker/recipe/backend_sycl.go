package recipe

import (
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// sycl is SYCL for Intel's cards. Its compiler, icpx, is in no Debian archive: the image is one that
// the user names (GOROCM_BASE_IMAGE), with oneAPI in it.
var sycl = Backend{
	Name: "sycl",
	Set:  toolchain.Set{Name: "sycl", Download: "140 MB"},
	Options: func([]gfx.Target) []Option {
		return []Option{
			{Name: "GGML_SYCL", Value: "ON"},
			{Name: "GGML_SYCL_TARGET", Value: "INTEL"},
			{Name: "CMAKE_C_COMPILER", Value: "icx"},
			{Name: "CMAKE_CXX_COMPILER", Value: "icpx"},
		}
	},
	Opened: []elfdep.Decision{
		{Name: "libze_intel_gpu.so.*", In: "libze_loader.so.*", Reason: "the host's driver"},
	},
	Devices:  "the host's Level Zero driver libze_intel_gpu.so.1, opened by the Level Zero loader",
	Untested: "the module was never compiled: no package registry has the compiler",
}
