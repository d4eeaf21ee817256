package gpu

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Driver is a Vulkan driver of the machine (ICD), as its manifest describes it.
type Driver struct {
	Manifest string `json:"manifest"` // path of the JSON file
	Library  string `json:"library"`  // path, or a name for the dynamic loader to find
	API      string `json:"api"`      // highest Vulkan version
	Software bool   `json:"software,omitempty"`
	Problem  string `json:"problem,omitempty"` // why it cannot be loaded; empty if nothing is known against it
}

// maxManifests limits how many manifests are read; a machine has about ten.
const maxManifests = 256

// VulkanDrivers returns the drivers that the Vulkan loader finds in an environment in
// the form of os.Environ, in the order of their manifests' paths. The places are those
// of the loader (docs/LoaderDriverInterface.md, "Driver Discovery on Linux"):
// VK_DRIVER_FILES or the older VK_ICD_FILENAMES instead of the directories, and
// VK_ADD_DRIVER_FILES in addition to them.
func (f FS) VulkanDrivers(environ []string) []Driver {
	var out []Driver
	seen := map[string]bool{}
	for _, path := range f.manifests(environ) {
		if seen[path] || len(out) == maxManifests {
			continue
		}
		seen[path] = true
		if d, ok := f.readManifest(path); ok {
			out = append(out, d)
		}
	}
	return out
}

// manifests returns the paths of the manifests.
func (f FS) manifests(environ []string) []string {
	get := func(name string) string {
		value := ""
		for _, e := range environ {
			if rest, ok := strings.CutPrefix(e, name+"="); ok {
				value = rest
			}
		}
		return value
	}
	var paths []string
	add := func(list string) {
		for _, path := range filepath.SplitList(list) {
			switch {
			case path == "":
			case strings.HasSuffix(path, ".json"):
				paths = append(paths, path)
			default:
				paths = append(paths, f.jsonFiles(path)...)
			}
		}
	}
	add(get("VK_ADD_DRIVER_FILES"))
	for _, name := range []string{"VK_DRIVER_FILES", "VK_ICD_FILENAMES"} {
		if list := get(name); list != "" {
			add(list)
			return paths
		}
	}
	home := get("HOME")
	or := func(list, otherwise string) string {
		if list == "" {
			return otherwise
		}
		return list
	}
	// The child's own XDG_CONFIG_HOME is a directory that does not exist.
	dirs := filepath.SplitList(or(get("XDG_CONFIG_DIRS"), "/etc/xdg"))
	dirs = append(dirs, "/etc", or(get("XDG_DATA_HOME"), filepath.Join(home, ".local/share")))
	dirs = append(dirs, filepath.SplitList(or(get("XDG_DATA_DIRS"), "/usr/local/share:/usr/share"))...)
	for _, dir := range dirs {
		if filepath.IsAbs(dir) {
			add(filepath.Join(dir, "vulkan/icd.d"))
		}
	}
	return paths
}

func (f FS) jsonFiles(dir string) []string {
	entries, err := os.ReadDir(f.path(dir))
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".json") {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(out)
	return out
}

// readManifest reads a manifest. ok is false for a driver of another architecture.
func (f FS) readManifest(path string) (d Driver, ok bool) {
	d = Driver{Manifest: path}
	raw, err := f.read(path)
	if err != nil {
		d.Problem = err.Error()
		return d, true
	}
	var m struct {
		ICD struct {
			Library string `json:"library_path"`
			API     string `json:"api_version"`
			Arch    string `json:"library_arch"`
		} `json:"ICD"`
	}
	if err := json.Unmarshal(raw, &m); err != nil || m.ICD.Library == "" {
		d.Problem = "it is not the manifest of a driver"
		return d, true
	}
	if m.ICD.Arch == "32" {
		return d, false
	}
	d.Library, d.API = m.ICD.Library, m.ICD.API
	library := filepath.Base(d.Library)
	d.Software = strings.Contains(library, "lvp") || strings.Contains(library, "swiftshader")
	if !strings.Contains(d.Library, "/") {
		return d, true // the dynamic loader searches for it
	}
	if !filepath.IsAbs(d.Library) {
		d.Library = filepath.Join(filepath.Dir(path), d.Library)
	}
	if !f.exists(d.Library) {
		d.Problem = "its library " + d.Library + " does not exist"
	}
	return d, true
}

// PCI vendor ids of GPUs other than AMD's.
const (
	VendorIntel  = 0x8086
	VendorNVIDIA = 0x10de
	VendorVirtio = 0x1af4 // of virtual machines; Mesa's driver venus passes Vulkan to the host
)

// Serves reports whether a driver is one for the GPUs of a PCI vendor, as far as the name
// of its library tells.
func (d Driver) Serves(vendor uint32) bool {
	library := filepath.Base(d.Library)
	names := map[uint32][]string{
		VendorAMD:    {"radeon", "amdvlk", "amdgpu"},
		VendorIntel:  {"intel"},
		VendorNVIDIA: {"nvidia", "nouveau"},
		VendorVirtio: {"virtio"},
	}
	return slices.ContainsFunc(names[vendor], func(name string) bool { return strings.Contains(library, name) })
}

// DriverPackages returns the Debian packages with a Vulkan driver for the GPUs of a PCI
// vendor, as the end of a sentence.
func DriverPackages(vendor uint32) string {
	if vendor == VendorNVIDIA {
		return "nvidia-vulkan-icd for NVIDIA's own kernel driver, mesa-vulkan-drivers of Debian 13 or later for nouveau"
	}
	return "mesa-vulkan-drivers on Debian and Ubuntu"
}

// DriversDigest returns a digest of the drivers that changes when one is installed,
// updated or removed.
func (f FS) DriversDigest(drivers []Driver) string {
	h := sha256.New()
	for _, d := range drivers {
		fmt.Fprintf(h, "%q %q %q\n", d.Manifest, d.Library, d.API)
		for _, dir := range []string{"", "usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib"} {
			if dir == "" && !filepath.IsAbs(d.Library) {
				continue
			}
			if info, err := os.Stat(f.path(dir, d.Library)); err == nil {
				fmt.Fprintf(h, "%d %d\n", info.Size(), info.ModTime().UnixNano())
				break
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}
