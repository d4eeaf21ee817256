package doctor

import (
	"fmt"
	"regexp"
	"strings"
)

// complaint is a kind of kernel message that explains a GPU that fails.
type complaint struct {
	pattern *regexp.Regexp
	remedy  string
}

// complaints are looked for in this order; the wording is that of the kernel's
// firmware loader and amdgpu driver.
func complaints() []complaint {
	return []complaint{
		{
			regexp.MustCompile(`(?i)firmware load for amdgpu/\S+ failed|amdgpu.*failed to (load|validate|request|init)\b.*(firmware|microcode)`),
			"install the card's firmware (linux-firmware on Ubuntu, firmware-amd-graphics on Debian), make the initramfs anew (update-initramfs -u) and reboot",
		},
		{
			regexp.MustCompile(`(?i)amdgpu.*fatal error during gpu init|amdgpu.*probe of \S+ failed`),
			"the driver did not start the card: see 'dmesg | grep amdgpu', update kernel and firmware",
		},
		{
			regexp.MustCompile(`(?i)amdgpu.*(gpu reset|ring \S+ timeout|page fault)`),
			"the card was reset or a program on it failed: reboot when it stays unusable; update kernel and firmware if it comes back",
		},
	}
}

// messages looks through the kernel's messages since boot for the GPU's.
func (m Machine) messages() Finding {
	const check = "firmware"
	if m.KernelLog == nil {
		return Finding{Check: check, Status: OK, Detail: "the kernel's messages are not looked at here"}
	}
	raw, err := m.KernelLog()
	if err != nil {
		return Finding{Check: check, Status: OK, Detail: fmt.Sprintf("the kernel's messages cannot be read by this user (%v); root can", err)}
	}
	for _, c := range complaints() {
		var last string
		n := 0
		for line := range strings.Lines(string(raw)) {
			if c.pattern.MatchString(line) {
				last = strings.TrimSpace(line)
				n++
			}
		}
		if n > 0 {
			return Finding{check, Warning, fmt.Sprintf("the kernel complains (%d such messages), last: %s", n, last), c.remedy}
		}
	}
	return Finding{Check: check, Status: OK, Detail: "no complaint about the GPU in the kernel's messages"}
}
