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

const onCPU = "models run on the CPU"

// GPU checks driver, device files with their permissions, and each GPU.
func (m Machine) CheckGPU() []Finding {
	fs := gpu.NewFS(m.Root)
	out, found := m.driver()
	if found || m.exists("dev/kfd") {
		out = append(out, m.openable(fs, "kfd", "/dev/kfd"))
		nodes := m.renderNodes()
		if len(nodes) == 0 {
			out = append(out, Finding{"render", Warning, "/dev/dri has no render node; " + onCPU, "see the driver's messages (dmesg | grep amdgpu); in a container, pass in --device /dev/dri"})
		}
		for _, n := range nodes {
			out = append(out, m.openable(fs, "render", n))
		}
	}
	return append(append(out, m.devices(fs)...), m.overrides()...)
}

// overrides tells of a variable that people set for other programs: by it one
// would expect another target than the one that is used.
func (m Machine) overrides() []Finding {
	set := gpu.TargetOverrides(m.Environ)
	if len(set) == 0 {
		return nil
	}
	return []Finding{{Check: "override", Status: OK, Detail: strings.Join(set, ", ") + " in the environment is not passed on to llama-server; --override is what chooses another target's code"}}
}

// driver tells whether amdgpu is loaded, and of each card that it has not what
// has it. found says that there is something to look at.
func (m Machine) driver() (out []Finding, found bool) {
	cards := m.amdCards()
	loaded := m.exists("sys/module/amdgpu") || m.exists("sys/class/kfd/kfd") || slices.ContainsFunc(cards, card.held)
	if loaded {
		f := Finding{Check: "driver", Status: OK, Detail: "amdgpu is loaded"}
		if version := m.text("sys/module/amdgpu/version"); version != "" {
			f.Detail += ", version " + version
		}
		out = append(out, f)
	}
	for _, c := range cards {
		if f, stray := c.stray(loaded); stray {
			out = append(out, f)
		}
	}
	if !loaded && len(cards) == 0 {
		out = append(out, Finding{"driver", Warning, "no AMD GPU is on the PCI bus; " + onCPU, "none is needed for the CPU; for a GPU, fit an RX 7900, 7800 or 7700"})
	}
	return out, loaded || len(cards) > 0
}

// card is a display controller on the PCI bus.
type card struct {
	address string
	driver  string // that holds it, empty: none
}

func (c card) held() bool { return c.driver == "amdgpu" }

// stray tells of a card that amdgpu does not have.
func (c card) stray(loaded bool) (Finding, bool) {
	f := Finding{Check: "driver", Status: Warning}
	switch {
	case c.held():
		return f, false
	case c.driver != "":
		f.Detail = fmt.Sprintf("%s is held by %s and not by amdgpu", c.address, c.driver)
		f.Remedy = "give the card back to amdgpu; vfio-pci holds it for a virtual machine"
	case loaded:
		f.Detail = c.address + " has no driver though amdgpu is loaded"
		f.Remedy = "see the driver's messages: dmesg | grep amdgpu"
	default:
		f.Detail = c.address + " has no driver: amdgpu is not loaded"
		f.Remedy = "modprobe amdgpu; look for a blacklist in /etc/modprobe.d and for nomodeset on the kernel's command line"
	}
	return f, true
}

// amdCards lists AMD's display controllers on the PCI bus (class 03).
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

// renderNodes lists /dev/dri/renderD*.
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

func (m Machine) openable(fs gpu.FS, check, name string) Finding {
	why := fs.AccessProblem(name)
	if why == "" {
		return Finding{Check: check, Status: OK, Detail: name + " may be opened"}
	}
	return withRemedy(check, why, "see that amdgpu is loaded")
}

// withRemedy parts what package gpu says, which is the reason and the remedy.
func withRemedy(check, why, otherwise string) Finding {
	detail, remedy, ok := strings.Cut(why, "; ")
	if !ok {
		remedy = otherwise
	}
	return Finding{check, Warning, detail + "; " + onCPU, remedy}
}

func (m Machine) devices(fs gpu.FS) []Finding {
	all, err := fs.Devices()
	if errors.Is(err, gpu.ErrNoDriver) {
		return nil // the driver's finding says it
	}
	var out []Finding
	if err != nil {
		out = append(out, Finding{"gpu", Warning, err.Error(), "see the driver's messages: dmesg | grep amdgpu"})
	}
	for _, d := range gpu.NewMask(m.Environ).Apply(all) {
		if d.Visible {
			out = append(out, Finding{Check: "gpu", Status: OK, Detail: fmt.Sprintf("%s at %s (%s), %s of %s free", d.Name, d.PCI, d.Target, size(d.VRAMFree()), size(d.VRAMTotal))})
			continue
		}
		f := withRemedy("gpu", d.UnusableReason, "change or unset the variable")
		f.Detail = fmt.Sprintf("%s at %s cannot be used: %s", d.Name, d.PCI, strings.TrimSuffix(f.Detail, "; "+onCPU))
		out = append(out, f)
	}
	if len(all) == 0 && err == nil {
		out = append(out, Finding{"gpu", Warning, "the driver knows no GPU; " + onCPU, "see the driver's messages: dmesg | grep amdgpu"})
	}
	return out
}
