package doctor_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/doctor"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/speed"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

// TestCheckVulkan: a missing driver is a warning only where a GPU needs one.
func TestCheckVulkan(t *testing.T) {
	radv := map[string]string{"usr/share/vulkan/icd.d/radeon.json": `{"ICD": {"library_path": "libvulkan_radeon.so"}}`}
	gone := map[string]string{"usr/share/vulkan/icd.d/radeon.json": `{"ICD": {"library_path": "/gone.so"}}`}
	card := gpu.Device{PCI: "0000:03:00.0", Vulkan: &gpu.Vulkan{Description: "RX 6800 (RADV NAVI21)"}}
	for name, c := range map[string]struct {
		files   map[string]string
		module  bool
		devices []gpu.Device
		problem error
		status  doctor.Status
		detail  string
	}{
		"no module":                {radv, false, nil, nil, doctor.OK, "no Vulkan module"},
		"no driver and no GPU":     {nil, true, nil, nil, doctor.OK, "no driver is installed"},
		"no driver for a GPU":      {nil, true, []gpu.Device{{PCI: "0000:01:00.0", Vendor: gpu.VendorAMD}}, nil, doctor.Warning, "no driver is installed"},
		"no driver, and HIP works": {nil, true, []gpu.Device{{PCI: "0000:01:00.0", Visible: true}}, nil, doctor.OK, "no driver is installed"},
		"a device":                 {radv, true, []gpu.Device{card}, nil, doctor.OK, "libvulkan_radeon.so: RX 6800 (RADV NAVI21)"},
		"software alone":           {radv, true, []gpu.Device{{Vulkan: &gpu.Vulkan{Unused: "it computes on the CPU"}}}, nil, doctor.OK, "no device but software"},
		"a library is missing":     {gone, true, nil, nil, doctor.Warning, "/gone.so does not exist"},
		"it cannot be loaded":      {radv, true, nil, errors.New("GLIBC_2.99 not found"), doctor.Warning, "GLIBC_2.99 not found"},
	} {
		m := doctor.Machine{Root: sysroot.Write(t, "", c.files)}
		f := m.CheckVulkan(c.module, c.devices, c.problem)
		if f.Status != c.status || !strings.Contains(f.Detail, c.detail) || (f.Status != doctor.OK) != (f.Remedy != "") {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// TestCheckVulkanOfOtherVendors: with the drivers as Debian's packages install them, a card
// without a driver is a warning that names the package.
func TestCheckVulkanOfOtherVendors(t *testing.T) {
	nvidia := gpu.Device{PCI: "0000:01:00.0", Vendor: gpu.VendorNVIDIA, Name: "NVIDIA GPU 10de:2684"}
	intel := gpu.Device{PCI: "0000:03:00.0", Vendor: gpu.VendorIntel, Name: "Intel GPU 8086:56a0"}
	radeon := gpu.Device{PCI: "0000:04:00.0", Vendor: gpu.VendorAMD, Name: "RX 6800"}
	offered := func(d gpu.Device, description string) gpu.Device {
		d.Vulkan = &gpu.Vulkan{Description: description}
		return d
	}
	for name, c := range map[string]struct {
		packages       []string
		devices        []gpu.Device
		detail, remedy string
	}{
		"NVIDIA with its driver":             {[]string{"nvidia-debian-13"}, []gpu.Device{offered(nvidia, "NVIDIA GeForce RTX 4090")}, "libGLX_nvidia.so.0: NVIDIA GeForce RTX 4090", ""},
		"NVIDIA without a driver":            {nil, []gpu.Device{nvidia}, "no driver is installed", "nvidia-vulkan-icd for NVIDIA's own kernel driver"},
		"NVIDIA with Mesa of Debian 12":      {[]string{"mesa-debian-12"}, []gpu.Device{nvidia}, "none of the drivers is for the NVIDIA GPU 10de:2684 at 0000:01:00.0", "nvidia-vulkan-icd"},
		"NVIDIA with nouveau":                {[]string{"mesa-debian-13"}, []gpu.Device{offered(nvidia, "NVIDIA GeForce RTX 4090 (NVK AD102)")}, "(NVK AD102)", ""},
		"Intel with Mesa of Debian 12":       {[]string{"mesa-debian-12"}, []gpu.Device{offered(intel, "Intel(R) Arc(tm) A770 Graphics (DG2)")}, "libvulkan_intel.so, ", ""},
		"Intel with NVIDIA's alone":          {[]string{"nvidia-debian-13"}, []gpu.Device{intel}, "none of the drivers is for the Intel GPU 8086:56a0", "mesa-vulkan-drivers on Debian"},
		"two vendors, one without":           {[]string{"nvidia-debian-13"}, []gpu.Device{offered(nvidia, "NVIDIA GeForce RTX 4090"), radeon}, "NVIDIA GeForce RTX 4090; none of the drivers is for the RX 6800 at 0000:04:00.0", "mesa-vulkan-drivers on Debian"},
		"two vendors with their drivers":     {[]string{"mesa-debian-13", "nvidia-debian-13"}, []gpu.Device{offered(nvidia, "NVIDIA GeForce RTX 4090"), offered(radeon, "AMD Radeon RX 6800 (RADV NAVI21)")}, "AMD Radeon RX 6800 (RADV NAVI21)", ""},
		"a display chip of a server's board": {[]string{"mesa-debian-13"}, []gpu.Device{{PCI: "0000:05:00.0", Vendor: 0x1a03}}, "no device but software", ""},
	} {
		m := doctor.Machine{Root: sysroot.Write(t, "", sysroot.VulkanDrivers(t, c.packages...))}
		f := m.CheckVulkan(true, c.devices, nil)
		if !strings.Contains(f.Detail, c.detail) || !strings.Contains(f.Remedy, c.remedy) || (f.Status == doctor.Warning) != (c.remedy != "") || (f.Remedy == "") != (c.remedy == "") {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// TestCheckSpeed: what was measured is shown, and what failed is a warning.
func TestCheckSpeed(t *testing.T) {
	now := time.Date(2026, 11, 29, 8, 0, 0, 0, time.UTC)
	s := speed.Sample{Mean: 10, Count: 3}
	record := speed.Record{
		Key: speed.Key{Card: "1002:744c:c8 gfx1100", Architecture: "llama", Quantisation: "Q4_0"}, Time: now,
		Runs:     []speed.Run{{Settings: speed.Settings{Backend: "vulkan", FlashAttention: true, Batch: speed.DefaultBatch}, Depths: []speed.Depth{{Prompt: s, Generation: s}}}},
		Failures: []speed.Failure{{Backend: "hip", Cause: "gpu hang", Time: now}},
	}
	f := doctor.CheckSpeed([]speed.Record{record}, now)
	if len(f) != 2 || f[0].Status != doctor.OK || !strings.Contains(f[0].Detail, "vulkan generates 10.0") || f[1].Status != doctor.Warning || !strings.Contains(f[1].Detail, "hip failed (gpu hang") {
		t.Errorf("%+v", f)
	}
	if f := doctor.CheckSpeed(nil, now); len(f) != 1 || f[0].Status != doctor.OK {
		t.Errorf("of nothing: %+v", f)
	}
}
