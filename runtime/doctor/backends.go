package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/speed"
)

// CheckVulkan checks the Vulkan drivers of the machine: which are installed, and which
// devices of them llama-server can use. devices are those of the machine with what
// llama-server reported, and problem is why it reported nothing.
func (m Machine) CheckVulkan(hasModule bool, devices []gpu.Device, problem error) Finding {
	const check = "vulkan"
	if !hasModule {
		return Finding{Check: check, Status: OK, Detail: "not used: the bundle has no Vulkan module"}
	}
	drivers := gpu.NewFS(m.Root).VulkanDrivers(m.Environ)
	var names, broken []string
	for _, d := range drivers {
		names = append(names, d.Library)
		if d.Problem != "" {
			broken = append(broken, d.Manifest+": "+d.Problem)
		}
	}
	without, needed := gpuWithoutDriver(devices, drivers)
	f := Finding{Check: check, Status: OK}
	switch {
	case len(names) == 0:
		f.Detail = "no driver is installed; cards that HIP cannot use compute nothing"
		if needed {
			f.Status, f.Remedy = Warning, "install a driver: "+gpu.DriverPackages(without.Vendor)
		}
		return f
	case problem != nil:
		return Finding{check, Warning, problem.Error(), "update the driver, or install one that this system's packages have (mesa-vulkan-drivers)"}
	case len(broken) > 0:
		f.Status, f.Remedy = Warning, "install the driver again, or remove its manifest"
		f.Detail = strings.Join(broken, "; ")
		return f
	}
	var usable []string
	for _, d := range devices {
		if d.Vulkan != nil && d.Vulkan.Unused == "" {
			usable = append(usable, d.Vulkan.Description)
		}
	}
	f.Detail = strings.Join(names, ", ") + ": "
	if len(usable) == 0 {
		f.Detail += "no device but software"
	} else {
		f.Detail += strings.Join(usable, ", ")
	}
	if needed {
		f.Status, f.Remedy = Warning, "install its driver: "+gpu.DriverPackages(without.Vendor)
		f.Detail += fmt.Sprintf("; none of the drivers is for the %s at %s", without.Name, without.PCI)
	}
	return f
}

// gpuWithoutDriver returns a GPU that HIP cannot use, and of whose vendor no Vulkan driver
// is installed. A display chip of a server's board is none: no driver computes with it.
func gpuWithoutDriver(devices []gpu.Device, drivers []gpu.Driver) (gpu.Device, bool) {
	for _, d := range devices {
		switch {
		case d.PCI == "" || d.Visible || d.Masked != "" || d.Vulkan != nil:
		case d.Vendor != gpu.VendorAMD && d.Vendor != gpu.VendorIntel && d.Vendor != gpu.VendorNVIDIA:
		case !slices.ContainsFunc(drivers, func(driver gpu.Driver) bool { return driver.Serves(d.Vendor) }):
			return d, true
		}
	}
	return gpu.Device{}, false
}

// CheckSpeed reports what was measured and what failed on the machine's cards, as it is
// now.
func CheckSpeed(records []speed.Record, now time.Time) []Finding {
	var out []Finding
	for _, r := range records {
		what := fmt.Sprintf("%s, %s on %s: ", r.Architecture, r.Quantisation, r.Card)
		if text := r.Describe(); text != "" {
			out = append(out, Finding{Check: "speed", Status: OK, Detail: what + text})
		}
		for backend, cause := range r.Failed(now) {
			out = append(out, Finding{"speed", Warning, fmt.Sprintf("%s%s failed (%s), and is not chosen", what, backend, cause), "go-rocm bench MODEL tries it again"})
		}
	}
	if len(out) == 0 {
		return []Finding{{Check: "speed", Status: OK, Detail: "nothing is measured; go-rocm bench MODEL lets auto choose the fastest backend"}}
	}
	return out
}
