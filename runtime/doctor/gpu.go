package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

const fallsBackToCPU = "models run on the CPU"

// CheckGPU checks the driver, the device files with their permissions, and each GPU.
func (m Machine) CheckGPU() []Finding {
	fs := gpu.NewFS(m.Root)
	out, found := m.checkDriver()
	if found || m.exists("dev/kfd") {
		out = append(out, m.checkDeviceFile(fs, "kfd", "/dev/kfd"))
		nodes := m.renderNodes()
		if len(nodes) == 0 {
			out = append(out, Finding{"render", Warning, "/dev/dri has no render node; " + fallsBackToCPU, "see the driver's messages (dmesg | grep amdgpu); in a container, pass --device /dev/dri"})
		}
		for _, n := range nodes {
			out = append(out, m.checkDeviceFile(fs, "render", n))
		}
	}
	return append(append(out, m.checkDevices(fs)...), m.checkOverrides()...)
}

// checkOverrides reports a variable that people set for other programs. With it they
// would expect another target than the one that llama-server uses.
func (m Machine) checkOverrides() []Finding {
	set := gpu.TargetOverrides(m.Environ)
	if len(set) == 0 {
		return nil
	}
	return []Finding{{Check: "override", Status: OK, Detail: strings.Join(set, ", ") + " in the environment is not passed on to llama-server; use --override to choose another target's code"}}
}

// checkDriver reports whether amdgpu is loaded, and which driver has each card that
// amdgpu does not have. found reports whether there is a driver or a card.
func (m Machine) checkDriver() (out []Finding, found bool) {
	cards := m.amdCards()
	loaded := m.exists("sys/module/amdgpu") || m.exists("sys/class/kfd/kfd") || slices.ContainsFunc(cards, card.usesAMDGPU)
	if loaded {
		f := Finding{Check: "driver", Status: OK, Detail: "amdgpu is loaded"}
		if version := m.text("sys/module/amdgpu/version"); version != "" {
			f.Detail += ", version " + version
		}
		out = append(out, f)
	}
	for _, c := range cards {
		if f, stray := c.finding(loaded); stray {
			out = append(out, f)
		}
	}
	if !loaded && len(cards) == 0 {
		out = append(out, Finding{"driver", Warning, "no AMD GPU is on the PCI bus; " + fallsBackToCPU, "the CPU needs none; to use a GPU, install an RX 7900, 7800 or 7700"})
	}
	return out, loaded || len(cards) > 0
}

// card is a display controller on the PCI bus.
type card struct {
	address string
	driver  string // bound to it, empty if none
}

func (c card) usesAMDGPU() bool { return c.driver == "amdgpu" }

// finding returns the finding for a card that amdgpu does not have; ok is false if
// amdgpu has it.
func (c card) finding(loaded bool) (Finding, bool) {
	f := Finding{Check: "driver", Status: Warning}
	switch {
	case c.usesAMDGPU():
		return f, false
	case c.driver != "":
		f.Detail = fmt.Sprintf("%s is bound to %s and not to amdgpu", c.address, c.driver)
		f.Remedy = "bind the card to amdgpu again; vfio-pci reserves it for a virtual machine"
	case loaded:
		f.Detail = c.address + " has no driver although amdgpu is loaded"
		f.Remedy = "see the driver's messages: dmesg | grep amdgpu"
	default:
		f.Detail = c.address + " has no driver: amdgpu is not loaded"
		f.Remedy = "modprobe amdgpu; look for a blacklist in /etc/modprobe.d and for nomodeset on the kernel's command line"
	}
	return f, true
}

// amdCards returns AMD's display controllers on the PCI bus (class 03).
func (m Machine) amdCards() []card {
	const dir = "sys/bus/pci/devices"
	entries, err := os.ReadDir(m.path(dir))
	if err != nil {
		return nil
	}
	var out []card
	for _, e := range entries {
		if m.text(dir, e.Name(), "vendor") != "0x1002" || !strings.HasPrefix(m.text(dir, e.Name(), "class"), "0x03") {
			continue
		}
		c := card{address: e.Name()}
		if to, err := os.Readlink(m.path(dir, e.Name(), "driver")); err == nil {
			c.driver = filepath.Base(to)
		}
		out = append(out, c)
	}
	return out
}

// renderNodes returns the files /dev/dri/renderD*.
func (m Machine) renderNodes() []string {
	entries, err := os.ReadDir(m.path("dev/dri"))
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "renderD") {
			out = append(out, "/dev/dri/"+e.Name())
		}
	}
	return out
}

func (m Machine) checkDeviceFile(fs gpu.FS, check, name string) Finding {
	why := fs.AccessProblem(name)
	if why == "" {
		return Finding{Check: check, Status: OK, Detail: name + " may be opened"}
	}
	return splitRemedy(check, why, "check that amdgpu is loaded")
}

// splitRemedy makes a finding of a message of package gpu: the reason, and after "; "
// the remedy.
func splitRemedy(check, why, otherwise string) Finding {
	detail, remedy, ok := strings.Cut(why, "; ")
	if !ok {
		remedy = otherwise
	}
	return Finding{check, Warning, detail + "; " + fallsBackToCPU, remedy}
}

func (m Machine) checkDevices(fs gpu.FS) []Finding {
	all, err := fs.Devices()
	if errors.Is(err, gpu.ErrNoDriver) {
		return nil // the driver's finding reports it
	}
	var out []Finding
	if err != nil {
		out = append(out, Finding{"gpu", Warning, err.Error(), "see the driver's messages: dmesg | grep amdgpu"})
	}
	for _, d := range gpu.NewMask(m.Environ).Apply(all) {
		if d.Visible {
			out = append(out, Finding{Check: "gpu", Status: OK, Detail: fmt.Sprintf("%s at %s (%s), %s of %s free", d.Name, d.PCI, d.Target, formatSize(d.VRAMFree()), formatSize(d.VRAMTotal))})
			continue
		}
		f := splitRemedy("gpu", d.UnusableReason, "change or unset the variable")
		f.Detail = fmt.Sprintf("%s at %s cannot be used: %s", d.Name, d.PCI, strings.TrimSuffix(f.Detail, "; "+fallsBackToCPU))
		out = append(out, f)
	}
	if len(all) == 0 && err == nil {
		out = append(out, Finding{"gpu", Warning, "the driver lists no GPU; " + fallsBackToCPU, "see the driver's messages: dmesg | grep amdgpu"})
	}
	return out
}
