package recipe

import (
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// vulkan is Vulkan on any card. The bundle contains the loader libvulkan.so.1. The driver is the
// host's, since it has to match the card and the kernel.
var vulkan = Backend{
	Name: "vulkan",
	Set:  toolchain.Set{Name: "vulkan", Extra: "glslc libvulkan-dev spirv-headers", Download: "160 MB"},
	Options: func([]gfx.Target) []Option {
		return []Option{{Name: "GGML_VULKAN", Value: "ON"}}
	},
	Devices: "the host's Vulkan drivers by their manifests (/usr/share/vulkan/icd.d and the other directories of the Vulkan loader)",
	Limits:  Limits{Packed: 18_000_000, Package: 18_000_000, Image: 26_000_000},
}
