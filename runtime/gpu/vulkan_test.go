package gpu_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

const mib = 1 << 20

// TestParseList reads what llama-server v0.5.0 prints.
func TestParseList(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []gpu.Listed
		ok   bool
	}{
		"two backends": {
			text: "load_backend: loaded Vulkan backend\nAvailable devices:\n" +
				"  ROCm0: AMD Radeon RX 7900 XTX (24560 MiB, 24000 MiB free)\n" +
				"  Vulkan0: AMD Radeon RX 7900 XTX (RADV NAVI31) (24560 MiB, 23987 MiB free)\n",
			want: []gpu.Listed{
				{"ROCm0", "AMD Radeon RX 7900 XTX", 24560 * mib, 24000 * mib},
				{"Vulkan0", "AMD Radeon RX 7900 XTX (RADV NAVI31)", 24560 * mib, 23987 * mib},
			},
			ok: true,
		},
		"software": {
			text: "Available devices:\n  Vulkan0: llvmpipe (LLVM 19.1.7, 256 bits) (32036 MiB, 32036 MiB free)\n",
			want: []gpu.Listed{{"Vulkan0", "llvmpipe (LLVM 19.1.7, 256 bits)", 32036 * mib, 32036 * mib}},
			ok:   true,
		},
		"none":            {"Available devices:\n  (none)\n", nil, true},
		"no list":         {"usage: llama-server\n  Vulkan0: x (1 MiB, 1 MiB free)\n", nil, false},
		"huge":            {"Available devices:\n  Vulkan0: x (99999999999999 MiB, 1 MiB free)\n", nil, true},
		"carriage return": {"Available devices:\r\n  Vulkan10: x (2 MiB, 1 MiB free)\r\n", []gpu.Listed{{"Vulkan10", "x", 2 * mib, mib}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := gpu.ParseList([]byte(c.text))
			if d := cmp.Diff(c.want, got); d != "" || ok != c.ok {
				t.Errorf("ok %v (-want +got):\n%s", ok, d)
			}
		})
	}
	if got := (gpu.Listed{Name: "Vulkan12"}).Backend(); got != "Vulkan" {
		t.Errorf("backend %q", got)
	}
}

// TestMatchVulkan: the kernel's card and the one of Vulkan are the same card.
func TestMatchVulkan(t *testing.T) {
	const (
		xtx = "AMD Radeon RX 7900 XTX (RADV NAVI31)"
		xt  = "AMD Radeon RX 7800 XT (RADV NAVI32)"
		cpu = "llvmpipe (LLVM 19.1.7, 256 bits)"
	)
	for name, c := range map[string]struct {
		machine string
		found   []gpu.Vulkan
		want    map[string]int // Vulkan's number by PCI address
	}{
		"one card":               {"rx7900xtx", []gpu.Vulkan{{Index: 0, Description: xtx, Total: 24560 * mib}}, map[string]int{"0000:03:00.0": 0}},
		"with a software driver": {"rx7900xtx", []gpu.Vulkan{{Index: 1, Description: xtx, Total: 24560 * mib}, {Index: 0, Description: cpu, Total: 64 << 30, Software: true}}, map[string]int{"0000:03:00.0": 1, "": 0}},
		"in another order":       {"two-cards", []gpu.Vulkan{{Index: 0, Description: xt, Total: 16368 * mib}, {Index: 1, Description: xtx, Total: 24560 * mib}}, map[string]int{"0000:03:00.0": 1, "0000:0b:00.0": 0}},
		"names that say nothing": {"two-cards", []gpu.Vulkan{{Index: 0, Description: "AMD GPU", Total: 16368 * mib}, {Index: 1, Description: "AMD GPU", Total: 24560 * mib}}, map[string]int{"0000:03:00.0": 1, "0000:0b:00.0": 0}},
		"equal cards":            {"two-equal", []gpu.Vulkan{{Index: 0, Description: xtx, Total: 24560 * mib}, {Index: 1, Description: xtx, Total: 24560 * mib}}, map[string]int{"0000:03:00.0": 0, "0000:0b:00.0": 1}},
		"integrated":             {"raphael", []gpu.Vulkan{{Index: 0, Description: "AMD Ryzen 9 7950X (RADV RAPHAEL_MENDOCINO)", Total: 32000 * mib}}, map[string]int{"0000:18:00.0": 0}},
		"card and integrated":    {"dgpu-raphael", []gpu.Vulkan{{Index: 0, Description: xtx, Total: 24560 * mib}, {Index: 1, Description: "AMD Radeon Graphics (RADV RAPHAEL_MENDOCINO)", Total: 32000 * mib}}, map[string]int{"0000:03:00.0": 0, "0000:18:00.0": 1}},
		"NVIDIA":                 {"nvidia", []gpu.Vulkan{{Index: 0, Description: "NVIDIA GeForce RTX 4090", Total: 24564 * mib}}, map[string]int{"0000:01:00.0": 0}},
		"of another vendor":      {"nvidia", []gpu.Vulkan{{Index: 0, Description: xtx, Total: 24560 * mib}}, map[string]int{"": 0}},
		"of another size":        {"rx7900xtx", []gpu.Vulkan{{Index: 0, Description: xtx, Total: 16368 * mib}}, map[string]int{"": 0}},
		"a second driver":        {"rx7900xtx", []gpu.Vulkan{{Index: 1, Description: xtx, Total: 24560 * mib}, {Index: 0, Description: "AMD Radeon RX 7900 XTX", Total: 24560 * mib, Unused: "another driver is preferred"}}, map[string]int{"0000:03:00.0": 1}},
		"no machine":             {"none", []gpu.Vulkan{{Index: 0, Description: cpu, Total: 64 << 30, Software: true}}, map[string]int{"": 0}},
	} {
		t.Run(name, func(t *testing.T) {
			cards, err := gpu.NewFS(sysroot.Write(t, c.machine, nil)).Cards()
			if err != nil && c.machine != "none" {
				t.Fatal(err)
			}
			got := map[string]int{}
			for _, d := range gpu.MatchVulkan(cards, c.found) {
				if d.Vulkan != nil {
					got[d.PCI] = d.Vulkan.Index
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, d := range cards {
				if d.Vulkan != nil {
					t.Error("the given devices were changed")
				}
			}
		})
	}
}

// TestCards: a card that KFD does not list is found by its render node.
func TestCards(t *testing.T) {
	for machine, want := range map[string][]string{
		"nvidia":              {"0000:01:00.0 10de NVIDIA GPU 10de:2684 index -1 visible false"},
		"rx7900xtx":           {"0000:03:00.0 1002 AMD Radeon RX 7900 XTX index 0 visible true"},
		"container-no-render": {"0000:03:00.0 1002 AMD Radeon RX 7900 XTX index 0 visible false"},
		"none":                nil,
	} {
		cards, err := gpu.NewFS(sysroot.Write(t, machine, nil)).Cards()
		if (err != nil) != (len(want) == 0) {
			t.Errorf("%s: %v", machine, err)
		}
		if d := cmp.Diff(want, describe(cards)); d != "" {
			t.Errorf("%s (-want +got):\n%s", machine, d)
		}
	}
	// An AMD card whose kernel has no KFD: its memory is known all the same.
	root := sysroot.Write(t, "rx7900xtx", nil)
	if err := os.RemoveAll(filepath.Join(root, "sys/class/kfd")); err != nil {
		t.Fatal(err)
	}
	cards, err := gpu.NewFS(root).Cards()
	if err != nil || len(cards) != 1 || !cards[0].MemoryKnown || cards[0].VRAMTotal != 25753026560 || cards[0].Target != "" {
		t.Errorf("%+v, %v", cards, err)
	}
}

func describe(cards []gpu.Device) []string {
	var out []string
	for _, d := range cards {
		visible := "false"
		if d.Visible {
			visible = "true"
		}
		index := "-1"
		if d.Index >= 0 {
			index = "0"
		}
		out = append(out, strings.Join([]string{d.PCI, map[uint32]string{gpu.VendorAMD: "1002", 0x10de: "10de"}[d.Vendor], d.Name, "index", index, "visible", visible}, " "))
	}
	return out
}

// TestCardsWithoutKFD: whether a card that only DRM lists is integrated decides which memory
// counts as its own, and whether it is used before a card.
func TestCardsWithoutKFD(t *testing.T) {
	device := func(minor, vendor, pci string) map[string]string {
		dir := "sys/class/drm/renderD" + minor + "/device/"
		return map[string]string{dir + "vendor": vendor + "\n", dir + "device": "0x0001\n", dir + "uevent": "PCI_SLOT_NAME=" + pci + "\n"}
	}
	const venus = "Virtio-GPU Venus (AMD Radeon RX 7900 XTX (RADV NAVI31))"
	for name, c := range map[string]struct {
		machine    string
		files      map[string]string
		found      gpu.Vulkan
		id         string
		integrated bool
		total      uint64
	}{
		"AMD, integrated":    {"raphael", nil, gpu.Vulkan{Description: "AMD Radeon Graphics (RADV RAPHAEL_MENDOCINO)", Total: 32000 * mib}, "0000:18:00.0", true, 536870912 + 33544736768},
		"AMD, a card":        {"rx7900xtx", nil, gpu.Vulkan{Description: "AMD Radeon RX 7900 XTX (RADV NAVI31)", Total: 24560 * mib}, "0000:03:00.0", false, 25753026560},
		"Intel, integrated":  {"", device("128", "0x8086", "0000:00:02.0"), gpu.Vulkan{Description: "Intel(R) UHD Graphics 770 (ADL-S GT1)", Total: 24000 * mib}, "0000:00:02.0", true, 24000 * mib},
		"Intel, a card":      {"", device("129", "0x8086", "0000:03:00.0"), gpu.Vulkan{Description: "Intel(R) Arc(tm) A770 Graphics (DG2)", Total: 16000 * mib}, "0000:03:00.0", false, 16000 * mib},
		"virtual":            {"", device("128", "0x1af4", "0000:00:04.0"), gpu.Vulkan{Description: venus, Total: 24560 * mib}, "0000:00:04.0", false, 24560 * mib},
		"virtual, no device": {"", nil, gpu.Vulkan{Index: 2, Description: venus, Total: 24560 * mib}, "vulkan2", false, 24560 * mib},
		"of a Windows host":  {"", nil, gpu.Vulkan{Index: 1, Description: "Microsoft Direct3D12 (NVIDIA GeForce RTX 4090)", Total: 24564 * mib}, "vulkan1", false, 24564 * mib},
	} {
		t.Run(name, func(t *testing.T) {
			root := sysroot.Write(t, c.machine, c.files)
			if err := os.RemoveAll(filepath.Join(root, "sys/class/kfd")); err != nil {
				t.Fatal(err)
			}
			cards, _ := gpu.NewFS(root).Cards()
			matched := gpu.MatchVulkan(cards, []gpu.Vulkan{c.found})
			if len(matched) != 1 || matched[0].Vulkan == nil {
				t.Fatalf("%d devices: %+v", len(matched), matched)
			}
			d := matched[0]
			if total, _ := d.VulkanMemory(); d.ID() != c.id || d.Integrated != c.integrated || total != c.total {
				t.Errorf("%s, integrated %v (%s), %d bytes", d.ID(), d.Integrated, d.Evidence, total)
			}
		})
	}
	// The card of the host has the name of a vendor whose own card is here, too.
	cards, err := gpu.NewFS(sysroot.Write(t, "rx7900xtx", nil)).Cards()
	if err != nil {
		t.Fatal(err)
	}
	if got := gpu.MatchVulkan(cards, []gpu.Vulkan{{Description: venus, Total: 24560 * mib}}); len(got) != 2 || got[0].Vulkan != nil {
		t.Errorf("the virtual device is taken for the real one: %+v", got)
	}
}

// TestIsSoftware: a virtual machine's device may be a software driver of its host.
func TestIsSoftware(t *testing.T) {
	for description, want := range map[string]bool{
		"llvmpipe (LLVM 19.1.7, 256 bits)": true, "Virtio-GPU Venus (llvmpipe (LLVM 19.1.7, 256 bits))": true,
		"SwiftShader Device (LLVM 10.0.0)": true, "Microsoft Direct3D12 (Microsoft Basic Render Driver)": true,
		"AMD Radeon RX 7900 XTX (RADV NAVI31)": false, "": false,
	} {
		if got := gpu.IsSoftware(description); got != want {
			t.Errorf("%q: %v", description, got)
		}
	}
	root := sysroot.Write(t, "", map[string]string{"opt/lvp/radeon.json": `{"ICD": {"library_path": "/home/calvpin/libvulkan_radeon.so"}}`})
	if d := gpu.NewFS(root).VulkanDrivers([]string{"VK_DRIVER_FILES=/opt/lvp/radeon.json"}); len(d) != 1 || d[0].Software {
		t.Errorf("a directory makes a driver one of software: %+v", d)
	}
}

// TestVulkanEnv: the variables show exactly the chosen devices, and none to HIP.
func TestVulkanEnv(t *testing.T) {
	device := func(index int, software bool) gpu.Device {
		return gpu.Device{Vulkan: &gpu.Vulkan{Index: index, Software: software}}
	}
	for _, c := range []struct {
		chosen []gpu.Device
		want   []string
	}{
		{[]gpu.Device{device(2, false)}, []string{"ROCR_VISIBLE_DEVICES=", "HIP_VISIBLE_DEVICES=", "VK_LOADER_LAYERS_DISABLE=~implicit~", "GGML_VK_VISIBLE_DEVICES=2"}},
		{[]gpu.Device{device(1, false), device(0, false)}, []string{"ROCR_VISIBLE_DEVICES=", "HIP_VISIBLE_DEVICES=", "VK_LOADER_LAYERS_DISABLE=~implicit~", "GGML_VK_VISIBLE_DEVICES=1,0"}},
		{[]gpu.Device{device(0, true)}, []string{"ROCR_VISIBLE_DEVICES=", "HIP_VISIBLE_DEVICES=", "VK_LOADER_LAYERS_DISABLE=~implicit~", "GGML_VK_VISIBLE_DEVICES=0", "GGML_VK_DISABLE_F16=1", "GGML_VK_DISABLE_COOPMAT=1"}},
	} {
		if got := gpu.VulkanEnv(c.chosen); !slices.Equal(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if value, set := gpu.VulkanMask([]string{"A=b", "GGML_VK_VISIBLE_DEVICES=0", "GGML_VK_VISIBLE_DEVICES="}); value != "" || !set {
		t.Errorf("mask %q, %v; the last value counts", value, set)
	}
}

// TestVulkanDrivers reads the manifests where the Vulkan loader looks for them.
func TestVulkanDrivers(t *testing.T) {
	manifest := func(library string) string {
		return `{"ICD": {"api_version": "1.4.305", "library_path": "` + library + `"}, "file_format_version": "1.0.1"}`
	}
	files := map[string]string{
		"usr/share/vulkan/icd.d/radeon_icd.x86_64.json": manifest("/usr/lib/x86_64-linux-gnu/libvulkan_radeon.so"),
		"usr/lib/x86_64-linux-gnu/libvulkan_radeon.so":  "elf",
		"usr/share/vulkan/icd.d/lvp_icd.x86_64.json":    manifest("libvulkan_lvp.so"),
		"usr/share/vulkan/icd.d/intel_icd.i686.json":    `{"ICD": {"api_version": "1.4.305", "library_path": "/x.so", "library_arch": "32"}}`,
		"usr/share/vulkan/icd.d/README":                 "no manifest",
		"etc/vulkan/icd.d/nvidia_icd.json":              manifest("libGLX_nvidia.so.0"),
		"home/u/.local/share/vulkan/icd.d/own.json":     manifest("../gone.so"),
		"opt/broken.json":                               "{",
	}
	for name, c := range map[string]struct {
		environ []string
		want    []string
	}{
		"default": {
			[]string{"HOME=/home/u"},
			[]string{
				"/etc/vulkan/icd.d/nvidia_icd.json libGLX_nvidia.so.0",
				"/home/u/.local/share/vulkan/icd.d/own.json /home/u/.local/share/vulkan/gone.so: its library /home/u/.local/share/vulkan/gone.so does not exist",
				"/usr/share/vulkan/icd.d/lvp_icd.x86_64.json libvulkan_lvp.so software",
				"/usr/share/vulkan/icd.d/radeon_icd.x86_64.json /usr/lib/x86_64-linux-gnu/libvulkan_radeon.so",
			},
		},
		"named":          {[]string{"VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json"}, []string{"/usr/share/vulkan/icd.d/lvp_icd.x86_64.json libvulkan_lvp.so software"}},
		"the older name": {[]string{"VK_ICD_FILENAMES=/opt/broken.json"}, []string{"/opt/broken.json : it is not the manifest of a driver"}},
		"a directory":    {[]string{"VK_DRIVER_FILES=/etc/vulkan/icd.d"}, []string{"/etc/vulkan/icd.d/nvidia_icd.json libGLX_nvidia.so.0"}},
		"added":          {[]string{"VK_ADD_DRIVER_FILES=/opt/broken.json", "XDG_DATA_DIRS=/none"}, []string{"/opt/broken.json : it is not the manifest of a driver", "/etc/vulkan/icd.d/nvidia_icd.json libGLX_nvidia.so.0"}},
		"none":           {[]string{"VK_DRIVER_FILES=/none.json"}, []string{"/none.json : open ROOT/none.json: no such file or directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			root := sysroot.Write(t, "", files)
			f := gpu.NewFS(root)
			drivers := f.VulkanDrivers(c.environ)
			var got []string
			for _, d := range drivers {
				line := d.Manifest + " " + d.Library
				if d.Software {
					line += " software"
				}
				if d.Problem != "" {
					line += ": " + strings.ReplaceAll(d.Problem, root, "ROOT")
				}
				got = append(got, line)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestVulkanDriversOfDebian reads the manifests as Debian's packages install them: Mesa's with
// whole paths and with names, and NVIDIA's.
func TestVulkanDriversOfDebian(t *testing.T) {
	for name, c := range map[string]struct {
		drivers             int
		amd, intel, nvidia  int // drivers that serve the vendor
		software            string
		first, firstVersion string
	}{
		"mesa-debian-12":   {4, 1, 2, 0, "/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so", "/usr/lib/x86_64-linux-gnu/libvulkan_intel_hasvk.so", "1.3.230"},
		"mesa-debian-13":   {7, 1, 2, 1, "libvulkan_lvp.so", "libvulkan_gfxstream.so", "1.1.305"},
		"nvidia-debian-13": {1, 0, 0, 1, "", "libGLX_nvidia.so.0", "1.3.277"},
	} {
		t.Run(name, func(t *testing.T) {
			f := gpu.NewFS(sysroot.Write(t, "", sysroot.VulkanDrivers(t, name)))
			drivers := f.VulkanDrivers(nil)
			if len(drivers) != c.drivers || drivers[0].Library != c.first || drivers[0].API != c.firstVersion {
				t.Fatalf("drivers %+v", drivers)
			}
			serves := map[uint32]int{}
			software := ""
			for _, d := range drivers {
				if d.Problem != "" {
					t.Errorf("%s: %s", d.Manifest, d.Problem)
				}
				if d.Software {
					software += d.Library
				}
				for _, vendor := range []uint32{gpu.VendorAMD, gpu.VendorIntel, gpu.VendorNVIDIA} {
					if d.Serves(vendor) {
						serves[vendor]++
					}
				}
			}
			if software != c.software || serves[gpu.VendorAMD] != c.amd || serves[gpu.VendorIntel] != c.intel || serves[gpu.VendorNVIDIA] != c.nvidia {
				t.Errorf("software is %q, the vendors are served %v", software, serves)
			}
		})
	}
}

// TestDriversDigest: an updated driver has another digest.
func TestDriversDigest(t *testing.T) {
	root := sysroot.Write(t, "", map[string]string{
		"usr/share/vulkan/icd.d/lvp.json":           `{"ICD": {"api_version": "1.4.305", "library_path": "libvulkan_lvp.so"}}`,
		"usr/lib/x86_64-linux-gnu/libvulkan_lvp.so": "one",
	})
	f := gpu.NewFS(root)
	before := f.DriversDigest(f.VulkanDrivers(nil))
	if again := f.DriversDigest(f.VulkanDrivers(nil)); again != before {
		t.Errorf("%s and %s for the same drivers", before, again)
	}
	if err := os.WriteFile(filepath.Join(root, "usr/lib/x86_64-linux-gnu/libvulkan_lvp.so"), []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if after := f.DriversDigest(f.VulkanDrivers(nil)); after == before {
		t.Error("an updated driver has the same digest")
	}
}

// FuzzParseList: no output makes the parser return a device without a name.
func FuzzParseList(f *testing.F) {
	f.Add("Available devices:\n  Vulkan0: llvmpipe (LLVM 19.1.7, 256 bits) (32036 MiB, 32036 MiB free)\n")
	f.Add("Available devices:\n  (none)\n")
	f.Fuzz(func(t *testing.T, text string) {
		devices, _ := gpu.ParseList([]byte(text))
		for _, d := range devices {
			if d.Name == "" || d.Backend() == d.Name {
				t.Errorf("%+v", d)
			}
		}
		gpu.MatchVulkan(nil, []gpu.Vulkan{{Description: text}})
	})
}
