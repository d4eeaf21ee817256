package recipe

import (
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// hip is ROCm. Its bundle also has the Vulkan module: for cards without HIP code, and for models that
// are faster with it.
var hip = Backend{
	Name: "hip", Set: toolchain.HIP, HasTargets: true,
	Options: func(targets []gfx.Target) []Option {
		names := make([]string, len(targets))
		for i, t := range targets {
			names[i] = t.String()
		}
		slices.Sort(names)
		return []Option{
			{Name: "GGML_HIP", Value: "ON"},
			{Name: "GGML_HIP_ROCWMMA_FATTN", Value: "OFF", IfKnown: true},
			{Name: "CMAKE_HIP_ARCHITECTURES", Value: strings.Join(names, ";")},
			{Name: "CMAKE_HIP_FLAGS", Value: hipFlags},
		}
	},
	With:    []string{"vulkan"},
	Devices: "KFD nodes of the kernel's driver amdgpu (/dev/kfd); everything else is in the bundle",
	Limits:  Limits{Packed: 115_000_000, Package: 112_000_000, Image: 118_000_000, OneTarget: 800_000_000, AllTargets: 1_150_000_000},
}
