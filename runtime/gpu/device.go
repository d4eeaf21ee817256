package gpu

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// VendorAMD is the PCI vendor id of AMD's GPUs.
const VendorAMD = 0x1002

// ErrNoDriver means that the kernel has no KFD: the amdgpu driver is not
// loaded, or this is a container or machine without an AMD GPU.
var ErrNoDriver = errors.New("no AMD GPU driver: /sys/class/kfd is missing (is amdgpu loaded?)")

// NodeError is the failure to read one topology node.
type NodeError struct {
	Node int
	Err  error
}

// Error implements error.
func (e *NodeError) Error() string { return fmt.Sprintf("gpu node %d: %v", e.Node, e.Err) }

// Unwrap returns the cause.
func (e *NodeError) Unwrap() error { return e.Err }

// Device is one GPU, or one partition of a GPU. Sizes are in bytes.
type Device struct {
	Node       int        `json:"node"`   // KFD topology node
	Index      int        `json:"index"`  // position in the HSA runtime's unmasked order, -1 when the runtime cannot see it
	Name       string     `json:"name"`   // marketing name where known, else vendor:device
	PCI        string     `json:"pci"`    // address, "0000:03:00.0"; empty for a device that only Vulkan lists, and for an unreadable node
	Vendor     uint32     `json:"vendor"` // PCI vendor id, VendorAMD for every device of KFD
	DeviceID   uint32     `json:"device"` // PCI device id
	Revision   uint32     `json:"revision"`
	Target     gfx.Target `json:"target"`
	UniqueID   uint64     `json:"unique_id,string"` // 0 where the hardware has none (many integrated GPUs)
	Integrated bool       `json:"integrated"`       // shares the machine's memory
	Evidence   string     `json:"evidence"`         // the source of Integrated

	VRAMTotal   uint64 `json:"vram_total"`
	VRAMUsed    uint64 `json:"vram_used"`
	GTTTotal    uint64 `json:"gtt_total"` // system memory that the GPU may map
	GTTUsed     uint64 `json:"gtt_used"`
	MemoryKnown bool   `json:"memory_known"` // used figures were readable
	ComputeUsed uint64 `json:"compute_used"` // of VRAMUsed, the part of ROCm processes

	RenderNode string  `json:"render_node"` // "/dev/dri/renderD128", empty if the node names none
	Card       string  `json:"card"`        // "card1", empty if there is no DRM device
	Sensors    Sensors `json:"sensors"`

	Visible        bool   `json:"visible"`          // HIP in this process may use it
	UnusableReason string `json:"unusable_reason"`  // if not Visible: the reason and, after "; ", the remedy
	Masked         string `json:"masked,omitempty"` // the variable of the environment that hides it, from every backend

	// Vulkan is what a Vulkan driver reports of the device, nil if none does or none
	// was asked. See MatchVulkan.
	Vulkan *Vulkan `json:"vulkan,omitempty"`
}

// Sensors holds what hwmon and the driver report; 0 means not reported.
type Sensors struct {
	EdgeCelsius     float64 `json:"edge_celsius,omitempty"`
	JunctionCelsius float64 `json:"junction_celsius,omitempty"`
	MemoryCelsius   float64 `json:"memory_celsius,omitempty"`
	PowerWatts      float64 `json:"power_watts,omitempty"`
	PowerCapWatts   float64 `json:"power_cap_watts,omitempty"`
	ShaderMHz       float64 `json:"shader_mhz,omitempty"`
	MemoryMHz       float64 `json:"memory_mhz,omitempty"`
	BusyPercent     float64 `json:"busy_percent,omitempty"`
	// Throttled says what limits the clocks now: ThrottleTemperature and others.
	// nil: nothing, or not reported.
	Throttled []string `json:"throttled,omitempty"`
	// Suspended reports that the card sleeps. Reading its sensors would wake it.
	Suspended bool `json:"suspended,omitempty"`
}

// ID returns the name by which options, plans and records refer to the device: its PCI
// address, else "vulkan" and Vulkan's number of it, else "node" and the number of its
// topology node.
func (d Device) ID() string {
	switch {
	case d.PCI != "":
		return d.PCI
	case d.Vulkan != nil:
		return "vulkan" + strconv.Itoa(d.Vulkan.Index)
	}
	return "node" + strconv.Itoa(d.Node)
}

// VulkanMemory returns the total and the used memory of a device that has Vulkan set, as
// llama.cpp counts it with Vulkan (ggml_backend_vk_get_device_memory in
// ggml-vulkan.cpp): of an integrated GPU all heaps, of others those on the device.
// Drivers count the memory of all programs, as the kernel does. The kernel's figures
// are newer than the driver's, which were listed once.
func (d Device) VulkanMemory() (total, used uint64) {
	switch {
	case !d.MemoryKnown:
		return d.Vulkan.Total, d.Vulkan.Total - min(d.Vulkan.Free, d.Vulkan.Total)
	case d.Integrated:
		return saturatingAdd(d.VRAMTotal, d.GTTTotal), saturatingAdd(d.VRAMUsed, d.GTTUsed)
	}
	return d.VRAMTotal, d.VRAMUsed
}

func saturatingAdd(a, b uint64) uint64 {
	if sum := a + b; sum >= a {
		return sum
	}
	return math.MaxUint64
}

// VRAMFree returns the memory that no process uses.
func (d Device) VRAMFree() uint64 {
	if d.VRAMUsed >= d.VRAMTotal {
		return 0
	}
	return d.VRAMTotal - d.VRAMUsed
}

// NonComputeUsed returns the used memory that HIP's own count of free memory
// ignores: that of graphics programs. HIP asks KFD, which counts ROCm processes and
// pinned buffers only (ggml-org/llama.cpp issue 24906).
func (d Device) NonComputeUsed() uint64 {
	if d.ComputeUsed >= d.VRAMUsed {
		return 0
	}
	return d.VRAMUsed - d.ComputeUsed
}

// UUID returns the name that ROCR_VISIBLE_DEVICES accepts ("GPU-" and 16 hexadecimal
// digits), empty for a device without a unique id.
func (d Device) UUID() string {
	if d.UniqueID == 0 {
		return ""
	}
	return fmt.Sprintf("GPU-%016x", d.UniqueID)
}
