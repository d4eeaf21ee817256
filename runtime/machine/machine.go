// Package machine plans models for a machine: this one, or a simulated one.
//
// A [Machine] is read once, from the kernel's files and a bundle's manifest, and
// plans any number of models. It loads none. Only where a plan depends on Vulkan, it
// starts llama-server to list Vulkan's devices, see [Machine.ReadVulkan].
package machine

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/host"
	"forge.lthn.ai/core/go-rocm/runtime/hostrocm"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/speed"
)

// Config says where a [Machine] is read from. The zero value reads this machine
// and logs nothing.
type Config struct {
	// SysRoot is the directory below which the kernel's files about GPUs and
	// memory are read; empty: "/". Tests read a tree of text files instead.
	SysRoot string
	// Log receives what planning depends on; nil: nothing is logged.
	Log *slog.Logger
	// Speed has what was measured and what failed on the machine's cards.
	Speed speed.Store
}

func (c *Config) root() string {
	if c.SysRoot == "" {
		return "/"
	}
	return c.SysRoot
}

func (c *Config) logger() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// Machine is the hardware and the bundle that models are planned for. A caller
// may change its fields before it calls Plan, to plan for another machine.
type Machine struct {
	// Devices are all GPUs, before the environment's masks are applied.
	Devices []gpu.Device
	// Targets are the GPU targets that the bundle has code for; nil without a
	// bundle.
	Targets []gfx.Target
	// HasVulkan is set if the bundle has the Vulkan module.
	HasVulkan bool
	// HostMemory is the main memory that may be used, in bytes; 0: unknown.
	HostMemory uint64
	// LibraryDirs are the directories of the host's ROCm, for a bundle without a
	// ROCm of its own.
	LibraryDirs []string

	config       Config
	hipBLASLt    []gfx.Target // the targets that the bundle has hipBLASLt kernels for
	noGPU        string       // why HIP can use no GPU, empty where it can
	simulated    bool         // the GPU does not exist, and no mask hides it
	bundleDigest string
	reopen       func() (*locate.Bundle, error) // the bundle, once more
	vulkan       vulkanState
	failed       map[string]map[plan.Backend]string // with the cause, by [gpu.Device.ID]
}

// New reads the GPUs and the memory, without a bundle.
func New(c Config) *Machine {
	m := &Machine{config: c}
	m.Refresh()
	return m
}

// Detect reads the GPUs, the memory and the bundle that [locate.Find] returns for
// bundlePath. Without any bundle it logs a warning, and no GPU has code.
func Detect(bundlePath string, c Config) (*Machine, error) {
	m := New(c)
	b, err := locate.Find(bundlePath)
	switch {
	case err == nil:
		m.UseBundle(b)
		return m, b.Close()
	case !errors.Is(err, locate.ErrNoBundle):
		return nil, err
	}
	c.logger().Warn("planning without a bundle: no GPU target has code", "cause", err.Error())
	return m, nil
}

// Refresh reads again what changes while programs run: the GPUs with their free
// memory, and the host's memory.
func (m *Machine) Refresh() {
	var err error
	root := m.config.root()
	m.HostMemory = host.ReadMemory(root).Usable()
	m.Devices, err = gpu.NewFS(root).Cards()
	if m.vulkan.read {
		m.Devices = gpu.MatchVulkan(m.Devices, m.vulkan.found)
	}
	if err != nil && !errors.Is(err, gpu.ErrNoDriver) {
		m.config.logger().Warn("some GPUs could not be read", "cause", err.Error())
	}
}

// UseBundle sets the bundle that models are planned with.
func (m *Machine) UseBundle(b *locate.Bundle) {
	m.Targets, m.hipBLASLt = b.Targets(), b.HIPBLASLtTargets()
	m.HasVulkan, m.bundleDigest = b.HasVulkan(), b.Digest()
	path := b.Path
	m.reopen = func() (*locate.Bundle, error) { return locate.Find(path) }
	if b.Manifest != nil && b.Manifest.Host != nil {
		m.useHostROCm(b.Manifest)
	}
}

// UseServer sets the llama-server that models are planned with, and what it says of
// itself.
func (m *Machine) UseServer(b *locate.Bundle, facts locate.ServerFacts) {
	path := b.Path
	m.bundleDigest = facts.Version
	m.reopen = func() (*locate.Bundle, error) { return locate.FindServer(path) }
	m.useServer(facts)
}

// useHostROCm finds the host's ROCm, which a bundle of the system flavour needs
// for GPUs. Without the host's ROCm, models run on the CPU and the plan has the
// reason.
func (m *Machine) useHostROCm(b *bundle.Manifest) {
	host, err := hostrocm.NewFS(m.config.root()).Find(b, m.environ())
	if err != nil {
		m.noGPU = err.Error()
		return
	}
	m.LibraryDirs = host.LibraryDirs
	log := m.config.logger()
	log.Info("using the host's ROCm", "directory", host.Location, "release", host.Version)
	for _, note := range host.Notes {
		log.Warn("the host's ROCm", "note", note)
	}
	var missing []gfx.Target
	m.Targets = slices.DeleteFunc(slices.Clone(m.Targets), func(t gfx.Target) bool {
		if slices.Contains(host.KernelTargets, t) {
			return false
		}
		missing = append(missing, t)
		return true
	})
	reason := host.MissingKernels(missing)
	switch {
	case reason == "":
	case len(m.Targets) == 0:
		m.noGPU = reason
	default:
		log.Warn("not every GPU of the bundle can be used", "reason", reason)
	}
}

// Simulate replaces the GPUs by one discrete card, with all of its vram bytes
// free, and ignores the environment's masks. Without a bundle the card's target
// counts as one that the bundle has code for.
func (m *Machine) Simulate(target gfx.Target, vram uint64) error {
	if len(m.Targets) > 0 && !slices.Contains(m.Targets, target) && len(target.OverridesFor(m.Targets)) == 0 {
		return fmt.Errorf("%w: the bundle has no code for %s (it has %s)", plan.ErrInvalidOption, target, gfx.Join(m.Targets, ", "))
	}
	if len(m.Targets) == 0 {
		m.Targets = []gfx.Target{target}
	}
	m.Devices = []gpu.Device{{
		Name: "simulated " + target.String(), PCI: "none", Vendor: gpu.VendorAMD, Target: target, UniqueID: 1,
		VRAMTotal: vram, MemoryKnown: true, Visible: true, Evidence: "simulated",
	}}
	m.simulated, m.noGPU = true, ""
	return nil
}

// environ returns the environment whose masks apply.
func (m *Machine) environ() []string {
	if m.simulated {
		return nil
	}
	return os.Environ()
}

// Devices returns the AMD GPUs of this machine that HIP may use. A GPU that permissions
// or the environment's masks hide from this process has Visible false and the reason in
// UnusableReason. Without the driver there are no GPUs, which is no error; a GPU that
// cannot be read is an error beside the readable ones.
func Devices() ([]gpu.Device, error) {
	all, err := gpu.NewFS("/").Devices()
	if errors.Is(err, gpu.ErrNoDriver) {
		return nil, nil
	}
	return gpu.NewMask(os.Environ()).Apply(all), err
}

// UsedMemory returns the GPU memory in use now, in bytes, by all programs, on the
// GPUs that this process may use; 0 without a GPU. The metrics of a model have
// the memory of that model.
func UsedMemory() (uint64, error) {
	return sumMemory(func(d gpu.Device) uint64 { return d.VRAMUsed }, func(d gpu.Device) uint64 { return d.GTTUsed })
}

// TotalMemory returns the size in bytes of the memory of the GPUs that this
// process may use; 0 without a GPU. Integrated GPUs count with the main memory
// that they may map.
func TotalMemory() (uint64, error) {
	return sumMemory(func(d gpu.Device) uint64 { return d.VRAMTotal }, func(d gpu.Device) uint64 { return d.GTTTotal })
}

func sumMemory(vram, gtt func(gpu.Device) uint64) (uint64, error) {
	all, err := Devices()
	var sum uint64
	for _, d := range all {
		if !d.Visible {
			continue
		}
		sum += vram(d)
		if d.Integrated {
			sum += gtt(d)
		}
	}
	return sum, err
}
