package fakellama

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"
)

// VulkanDevice is a physical device of Vulkan.
type VulkanDevice struct {
	Description string `json:"description"`
	MiB         int    `json:"mib"`
	FreeMiB     int    `json:"free_mib,omitempty"` // 0: all of it
	// Software devices are listed only if the mask names them, as are those of CPUs.
	Software bool `json:"software,omitempty"`
	// Crash ends the process with SIGSEGV when a mask names the device.
	Crash bool `json:"crash,omitempty"`
}

// listDevices prints the devices as common_print_available_devices in common/arg.cpp
// does. A mask with a number that does not exist hides all.
func listDevices(w io.Writer, s Script, getenv func(string) string, lookup func(string) (string, bool)) error {
	var lines []string
	if _, hidden := lookup("ROCR_VISIBLE_DEVICES"); !hidden || getenv("ROCR_VISIBLE_DEVICES") != "" {
		for i, name := range s.ROCm {
			lines = append(lines, fmt.Sprintf("ROCm%d: %s (24560 MiB, 24000 MiB free)", i, name))
		}
	}
	for i, d := range visibleVulkan(s.Vulkan, lookup) {
		lines = append(lines, fmt.Sprintf("Vulkan%d: %s (%d MiB, %d MiB free)", i, d.Description, d.MiB, cmp.Or(d.FreeMiB, d.MiB)))
	}
	if len(lines) == 0 {
		lines = []string{"(none)"}
	}
	_, err := io.WriteString(w, "Available devices:\n  "+strings.Join(lines, "\n  ")+"\n")
	return err
}

func visibleVulkan(all []VulkanDevice, lookup func(string) (string, bool)) []VulkanDevice {
	var out []VulkanDevice
	mask, set := lookup("GGML_VK_VISIBLE_DEVICES")
	if !set {
		for _, d := range all {
			if !d.Software {
				out = append(out, d)
			}
		}
		return out
	}
	for _, field := range strings.Fields(strings.ReplaceAll(mask, ",", " ")) {
		n, err := strconv.Atoi(field)
		if err != nil || n < 0 || n >= len(all) {
			return nil
		}
		if all[n].Crash {
			raise(syscall.SIGSEGV)
		}
		out = append(out, all[n])
	}
	return out
}
