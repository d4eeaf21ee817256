package gpu

import (
	"bufio"
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// EnvVulkan is the mask of llama.cpp's Vulkan backend: a list of the numbers of
// Vulkan's physical devices. Without it, the backend uses the discrete and integrated
// GPUs, each with one driver; with it, exactly the named devices, software drivers
// included; empty, none (ggml_vk_instance_init in ggml-vulkan.cpp).
const EnvVulkan = "GGML_VK_VISIBLE_DEVICES"

// Vulkan is a device as llama-server reports it through a Vulkan driver. Sizes are in
// bytes.
type Vulkan struct {
	Index       int    `json:"index"`       // Vulkan's physical device, for EnvVulkan
	Description string `json:"description"` // device and driver, such as "AMD Radeon RX 7900 XTX (RADV NAVI31)"
	Total       uint64 `json:"total"`       // its heaps: of an integrated GPU all, of others those on the device
	Free        uint64 `json:"free"`        // when it was listed
	// Software drivers compute on the CPU. They are used only if EnvVulkan in the
	// environment and the options name them.
	Software bool `json:"software,omitempty"`
	// Requested is set where EnvVulkan in the environment named the device.
	Requested bool `json:"requested,omitempty"`
	// Unused is why llama.cpp does not use the device by itself; empty if it does.
	Unused string `json:"unused,omitempty"`
}

// IsSoftware reports whether a description is that of a driver that computes on the
// CPU: Mesa's lavapipe, whose devices are called llvmpipe, SwiftShader, or Windows' own
// (Basic Render). A virtual machine's device has the name of the host's in its own.
func IsSoftware(description string) bool {
	for _, name := range []string{"llvmpipe", "SwiftShader", "Basic Render"} {
		if strings.Contains(description, name) {
			return true
		}
	}
	return false
}

// Listed is one line of llama-server's --list-devices. Sizes are in bytes.
type Listed struct {
	Name        string // "Vulkan0", "ROCm0", "CUDA0"
	Description string
	Total, Free uint64
}

// Backend returns the name without its number: "Vulkan", "ROCm", "CUDA".
func (l Listed) Backend() string { return strings.TrimRight(l.Name, "0123456789") }

// listedLine is a line of common_print_available_devices in common/arg.cpp. The
// description may contain parentheses.
var listedLine = regexp.MustCompile(`^\s+([A-Za-z]+[0-9]+): (.*) \(([0-9]{1,12}) MiB, ([0-9]{1,12}) MiB free\)$`)

// ParseList returns the devices in the output of llama-server --list-devices. ok is
// false if the output contains no list.
func ParseList(text []byte) (devices []Listed, ok bool) {
	sc := bufio.NewScanner(bytes.NewReader(text))
	for sc.Scan() {
		line := strings.TrimRight(sc.Text(), "\r")
		if strings.HasPrefix(line, "Available devices:") {
			ok = true
			continue
		}
		m := listedLine.FindStringSubmatch(line)
		if !ok || m == nil {
			continue
		}
		total, errTotal := strconv.ParseUint(m[3], 10, 43)
		free, errFree := strconv.ParseUint(m[4], 10, 43)
		if errTotal == nil && errFree == nil {
			devices = append(devices, Listed{m[1], m[2], total << 20, free << 20})
		}
	}
	return devices, ok
}

// MatchVulkan returns the devices with what Vulkan reports of each, followed by one
// device for each of found that no kernel driver explains, such as a software driver.
// It does not change devices.
//
// llama-server prints no PCI addresses. A device of Vulkan is the kernel's device with
// the same name, vendor and memory size. Among equal cards the order decides: on Linux
// the Vulkan loader sorts devices by PCI address
// (linux_read_sorted_physical_devices in loader_linux.c).
func MatchVulkan(devices []Device, found []Vulkan) []Device {
	out := slices.Clone(devices)
	byAddress := make([]int, len(out))
	for i := range out {
		byAddress[i] = i
		out[i].Vulkan = nil
	}
	slices.SortStableFunc(byAddress, func(a, b int) int { return strings.Compare(out[a].PCI, out[b].PCI) })
	for _, v := range found {
		best, score, another := -1, 0, false
		for _, i := range byAddress {
			s := similarity(out[i], v)
			another = another || s > 0
			if s > score && (out[i].Vulkan == nil || out[i].Vulkan.Unused != "") {
				best, score = i, s
			}
		}
		switch {
		case best >= 0 && (v.Unused == "" || out[best].Vulkan == nil):
			out[best].Vulkan = &v
		case another && v.Unused != "": // a second driver of a card
		case best < 0:
			out = append(out, vulkanOnly(v))
		}
	}
	return out
}

// vulkanOnly returns the device for one that no kernel driver lists.
func vulkanOnly(v Vulkan) Device {
	d := Device{
		Node: -1, Index: -1, Name: v.Description, Vulkan: &v, VRAMTotal: v.Total, VRAMUsed: v.Total - min(v.Free, v.Total),
		UnusableReason: "the kernel lists no such GPU, so HIP cannot use it",
	}
	if v.Software {
		d.Integrated, d.Evidence = true, "Vulkan driver that computes on the CPU"
	}
	return d
}

// similarity returns how well a device of Vulkan matches one of the kernel; 0: it is
// another one.
func similarity(d Device, v Vulkan) int {
	if v.Software || d.PCI == "" {
		return 0
	}
	text := strings.ToLower(v.Description)
	if !offers(text, d.Vendor) {
		return 0
	}
	memory := d.VRAMTotal
	if d.Integrated {
		memory += d.GTTTotal
	}
	if d.MemoryKnown && !d.Integrated && !near(memory, v.Total) {
		return 0
	}
	return 1 + boolScore(near(memory, v.Total)) + 2*boolScore(d.Name != "" && strings.HasPrefix(text, strings.ToLower(d.Name)))
}

// offers reports whether a description in lower case is that of a device of a PCI vendor.
// A device of a virtual machine, "Virtio-GPU Venus (AMD Radeon ...)", has the name of the
// host's card in its own, which may be of any vendor.
func offers(text string, vendor uint32) bool {
	virtual := strings.HasPrefix(text, "virtio")
	names := map[uint32][]string{VendorAMD: {"amd", "radv", "radeon"}, VendorNVIDIA: {"nvidia", "nvk"}, VendorIntel: {"intel"}}[vendor]
	switch {
	case virtual || vendor == VendorVirtio:
		return virtual && vendor == VendorVirtio
	case strings.HasPrefix(text, "microsoft direct3d12"):
		return false // of the Windows that runs this system
	}
	return slices.ContainsFunc(names, func(name string) bool { return strings.Contains(text, name) })
}

func boolScore(b bool) int {
	if b {
		return 1
	}
	return 0
}

// near reports whether two sizes differ by less than a sixteenth: drivers keep a part
// of a card's memory.
func near(a, b uint64) bool {
	return max(a, b)-min(a, b) <= max(a, b)/16
}

// VulkanEnv returns the variables, as KEY=VALUE, with which exactly the given devices
// are visible to Vulkan, in that order, and none to HIP. Each device has Vulkan set.
func VulkanEnv(chosen []Device) []string {
	numbers := make([]string, len(chosen))
	software := false
	for i, d := range chosen {
		numbers[i] = strconv.Itoa(d.Vulkan.Index)
		software = software || d.Vulkan.Software
	}
	env := append(VulkanListEnv(), EnvVulkan+"="+strings.Join(numbers, ","))
	if software {
		// As in llama.cpp's own tests with lavapipe (build-vulkan.yml).
		env = append(env, "GGML_VK_DISABLE_F16=1", "GGML_VK_DISABLE_COOPMAT=1")
	}
	return env
}

// VulkanListEnv returns the variables under which Vulkan's devices are listed and used:
// none of HIP, and without the host's implicit layers. These may change the numbers of
// the devices (Mesa's device_select), and load libraries of window systems.
func VulkanListEnv() []string {
	return []string{EnvROCR + "=", EnvHIP + "=", "VK_LOADER_LAYERS_DISABLE=~implicit~"}
}

// NoVulkanEnv returns the variables with which no Vulkan driver is loaded. With the
// mask alone, the loader would still load every driver of the machine.
func NoVulkanEnv() []string { return []string{EnvVulkan + "=", "VK_LOADER_DRIVERS_DISABLE=*"} }

// VulkanMask returns the value of EnvVulkan in an environment in the form of
// os.Environ, and whether it is set.
func VulkanMask(environ []string) (value string, set bool) {
	for _, e := range environ {
		if rest, ok := strings.CutPrefix(e, EnvVulkan+"="); ok {
			value, set = rest, true
		}
	}
	return value, set
}
