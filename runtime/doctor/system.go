package doctor

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/runtime/host"
)

// The kernel advised for RDNA 3: earlier ones lack fixes of its compute driver.
const adviseMajor, adviseMinor = 6, 10

func (m Machine) kernel() Finding {
	f := Finding{Check: "kernel", Status: OK, Detail: m.text("proc/sys/kernel/osrelease")}
	sub := regexp.MustCompile(`^(\d+)\.(\d+)`).FindStringSubmatch(f.Detail)
	if sub == nil {
		return Finding{"kernel", Warning, fmt.Sprintf("its release %q cannot be read", f.Detail), "see that /proc is mounted"}
	}
	major, _ := strconv.Atoi(sub[1]) // digits; a number too large is a large number
	minor, _ := strconv.Atoi(sub[2])
	if major < adviseMajor || (major == adviseMajor && minor < adviseMinor) {
		f.Status = Warning
		f.Detail += fmt.Sprintf("; %d.%d or newer is advised for RDNA 3", adviseMajor, adviseMinor)
		f.Remedy = "install a newer kernel: linux-generic-hwe-24.04 on Ubuntu 24.04, the one of backports on Debian 12"
	}
	return f
}

// supported are the distributions that are tried, by ID and VERSION_ID.
func supported() map[string][]string {
	return map[string][]string{"ubuntu": {"22.04", "24.04"}, "debian": {"12", "13"}}
}

// distribution compares os-release(5) with what is supported.
func (m Machine) distribution() Finding {
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
	for _, version := range supported()[v["ID"]] {
		if version == v["VERSION_ID"] {
			return Finding{Check: "distribution", Status: OK, Detail: name}
		}
	}
	return Finding{
		"distribution", Warning, name + " is not one that go-rocm is tested on",
		"a hermetic bundle brings all its libraries and should run; use Ubuntu 22.04 or 24.04, or Debian 12 or 13, to be sure",
	}
}

// container tells whether this is one, and whether the GPU was passed in.
func (m Machine) container() (Finding, bool) {
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
	f := Finding{Check: "container", Status: OK, Detail: kind + "; the GPU's devices are passed in"}
	kfd, nodes := m.exists("dev/kfd"), len(m.renderNodes()) > 0
	switch {
	case kfd && nodes:
	case !m.exists("sys/class/kfd"):
		f.Detail = kind + "; the machine has no AMD GPU driver, nothing is passed in"
	default:
		f.Status = Warning
		f.Detail = kind + "; the machine has an AMD GPU driver and its devices are not passed in"
		f.Remedy = "start the container with --device /dev/kfd --device /dev/dri, and --group-add with the groups that own them on the host (stat -c %g /dev/kfd /dev/dri/renderD*)"
	}
	return f, true
}

// little is the main memory below which hardly a useful model runs.
const little = 4 << 30

func (m Machine) memory() Finding {
	mem := host.ReadMemory(m.Root)
	f := Finding{Check: "memory", Status: OK, Detail: size(mem.Total)}
	if mem.Available > 0 {
		f.Detail += ", " + size(mem.Available) + " available"
	}
	if mem.Usable() < mem.Total {
		f.Detail += fmt.Sprintf("; limited to %s by %s", size(mem.Limit), mem.LimitedBy)
	}
	switch {
	case mem.Total == 0:
		f = Finding{"memory", Warning, "its size cannot be read", "see that /proc is mounted"}
	case m.AddressSpaceLimit > 0:
		f.Status = Warning
		f.Detail += fmt.Sprintf("; a process may have %s of address space, and model files and GPU memory count", size(m.AddressSpaceLimit))
		f.Remedy = "lift the limit: ulimit -v unlimited, or LimitAS=infinity in a systemd unit"
	case mem.Usable() < little:
		f.Status, f.Remedy = Warning, "use small models, or raise the limit (memory.max, --memory, MemoryMax=)"
	}
	return f
}

// size prints bytes in the binary unit that people use.
func size(n uint64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
