package doctor

import (
	"fmt"
	"regexp"
	"strings"
)

// kernelMessage is a type of kernel message that explains a failing GPU.
type kernelMessage struct {
	pattern *regexp.Regexp
	remedy  string
}

// kernelMessages returns the types in the order in which they are searched. The
// wording is that of the kernel's firmware loader and amdgpu driver.
func kernelMessages() []kernelMessage {
	return []kernelMessage{
		{
			regexp.MustCompile(`(?i)firmware load for amdgpu/\S+ failed|amdgpu.*failed to (load|validate|request|init)\b.*(firmware|microcode)`),
			"install the card's firmware (linux-firmware on Ubuntu, firmware-amd-graphics on Debian), update the initramfs (update-initramfs -u) and reboot",
		},
		{
			regexp.MustCompile(`(?i)amdgpu.*fatal error during gpu init|amdgpu.*probe of \S+ failed`),
			"the driver did not initialize the card: see 'dmesg | grep amdgpu', update kernel and firmware",
		},
		{
			regexp.MustCompile(`(?i)amdgpu.*(gpu reset|ring \S+ timeout|page fault)`),
			"the card was reset or a program on it failed: reboot if the card stays unusable; update kernel and firmware if it happens again",
		},
	}
}

// checkKernelLog searches the kernel's messages since boot for those about the GPU.
func (m Machine) checkKernelLog() Finding {
	const check = "firmware"
	if m.KernelLog == nil {
		return Finding{Check: check, Status: OK, Detail: "the kernel's messages are not read on this system"}
	}
	raw, err := m.KernelLog()
	if err != nil {
		return Finding{Check: check, Status: OK, Detail: fmt.Sprintf("the kernel's messages cannot be read by this user (%v); root can", err)}
	}
	for _, c := range kernelMessages() {
		var last string
		n := 0
		for line := range strings.Lines(string(raw)) {
			if c.pattern.MatchString(line) {
				last = strings.TrimSpace(line)
				n++
			}
		}
		if n > 0 {
			return Finding{check, Warning, fmt.Sprintf("the kernel reports a problem (%d such messages), last: %s", n, last), c.remedy}
		}
	}
	return Finding{Check: check, Status: OK, Detail: "the kernel's messages report no problem with the GPU"}
}
