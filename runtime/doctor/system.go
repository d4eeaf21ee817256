package doctor

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/runtime/host"
)

// The kernel recommended for RDNA 3: earlier ones lack fixes of its compute driver.
const recommendedMajor, recommendedMinor = 6, 10

func (m Machine) checkKernel() Finding {
	f := Finding{Check: "kernel", Status: OK, Detail: m.text("proc/sys/kernel/osrelease")}
	sub := regexp.MustCompile(`^(\d+)\.(\d+)`).FindStringSubmatch(f.Detail)
	if sub == nil {
		return Finding{"kernel", Warning, fmt.Sprintf("its release %q cannot be read", f.Detail), "check that /proc is mounted"}
	}
	major, _ := strconv.Atoi(sub[1]) // digits; a number too large is a large number
	minor, _ := strconv.Atoi(sub[2])
	if major < recommendedMajor || (major == recommendedMajor && minor < recommendedMinor) {
		f.Status = Warning
		f.Detail += fmt.Sprintf("; %d.%d or newer is recommended for RDNA 3", recommendedMajor, recommendedMinor)
		f.Remedy = "install a newer kernel: linux-generic-hwe-24.04 on Ubuntu 24.04, the backports kernel on Debian 12"
	}
	return f
}

// supportedDistributions returns the tested distributions, by ID and VERSION_ID.
func supportedDistributions() map[string][]string {
	return map[string][]string{"ubuntu": {"22.04", "24.04"}, "debian": {"12", "13"}}
}

// checkDistribution compares os-release(5) with the supported distributions.
func (m Machine) checkDistribution() Finding {
	raw := m.text("etc/os-release")
	if raw == "" {
		raw = m.text("usr/lib/os-release")
	}
	v := map[string]string{}
	for line := range strings.Lines(raw) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			v[key] = strings.Trim(value, `"'`)
		}
	}
	name := v["PRETTY_NAME"]
	if name == "" {
		name = strings.TrimSpace(v["ID"] + " " + v["VERSION_ID"])
	}
	if name == "" {
		name = "unknown"
	}
	for _, version := range supportedDistributions()[v["ID"]] {
		if version == v["VERSION_ID"] {
			return Finding{Check: "distribution", Status: OK, Detail: name}
		}
	}
	return Finding{
		"distribution", Warning, name + " is not a distribution that go-rocm is tested on",
		"a hermetic bundle contains all its libraries and should run; use Ubuntu 22.04 or 24.04, or Debian 12 or 13, to be sure",
	}
}

// checkContainer reports whether this is a container, and whether the GPU's devices
// are passed to it.
func (m Machine) checkContainer() (Finding, bool) {
	kind := m.getenv("container") // set by systemd-nspawn, podman, LXC
	switch {
	case m.exists(".dockerenv"):
		kind = "docker"
	case m.exists("run/.containerenv"):
		kind = "podman"
	case kind == "" && regexp.MustCompile(`(?m)[/:](kubepods|docker|lxc|libpod)`).MatchString(m.text("proc/self/cgroup")):
		kind = "by its control group"
	}
	if kind == "" {
		return Finding{}, false
	}
	f := Finding{Check: "container", Status: OK, Detail: kind + "; the GPU's devices are available"}
	kfd, nodes := m.exists("dev/kfd"), len(m.renderNodes()) > 0
	switch {
	case kfd && nodes:
	case !m.exists("sys/class/kfd"):
		f.Detail = kind + "; the machine has no AMD GPU driver, and no device is available"
	default:
		f.Status = Warning
		f.Detail = kind + "; the machine has an AMD GPU driver, but its devices are not passed to the container"
		f.Remedy = "start the container with --device /dev/kfd --device /dev/dri, and --group-add with the groups that own them on the host (stat -c %g /dev/kfd /dev/dri/renderD*)"
	}
	return f, true
}

// minUsefulMemory is the main memory below which hardly a useful model runs.
const minUsefulMemory = 4 << 30

func (m Machine) checkMemory() Finding {
	mem := host.ReadMemory(m.Root)
	f := Finding{Check: "memory", Status: OK, Detail: formatSize(mem.Total)}
	if mem.Available > 0 {
		f.Detail += ", " + formatSize(mem.Available) + " available"
	}
	if mem.Usable() < mem.Total {
		f.Detail += fmt.Sprintf("; limited to %s by %s", formatSize(mem.Limit), mem.LimitedBy)
	}
	switch {
	case mem.Total == 0:
		f = Finding{"memory", Warning, "its size cannot be read", "check that /proc is mounted"}
	case m.AddressSpaceLimit > 0:
		f.Status = Warning
		f.Detail += fmt.Sprintf("; a process may use %s of address space, which includes model files and GPU memory", formatSize(m.AddressSpaceLimit))
		f.Remedy = "remove the limit: ulimit -v unlimited, or LimitAS=infinity in a systemd unit"
	case mem.Usable() < minUsefulMemory:
		f.Status, f.Remedy = Warning, "use small models, or raise the limit (memory.max, --memory, MemoryMax=)"
	}
	return f
}

// formatSize formats bytes in the binary unit that people use.
func formatSize(n uint64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
