package rocm

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/host"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// Devices lists the AMD GPUs of this machine. Those that permissions or the
// masks in the environment keep from this process have Visible false and the
// reason in Why. A machine without the driver has none, which is no error; a
// device that cannot be read is an error beside the ones that can.
func Devices() ([]gpu.Device, error) { return devicesBelow("/") }

func devicesBelow(root string) ([]gpu.Device, error) {
	all, err := gpu.NewFS(root).Devices()
	if errors.Is(err, gpu.ErrNoDriver) {
		return nil, nil
	}
	return gpu.NewMask(os.Environ()).Apply(all), err
}

// ActiveMemory is the GPU memory in use now, in bytes, by all programs and over
// the GPUs that this process may use; 0 without one. What one model uses is in
// its Metrics.
func ActiveMemory() (uint64, error) {
	return sumMemory("/", func(d gpu.Device) uint64 { return d.VRAMUsed }, func(d gpu.Device) uint64 { return d.GTTUsed })
}

// TotalMemory is the size in bytes of the memory of the GPUs that this process
// may use; 0 without one. Integrated GPUs count with the main memory that they
// may map.
func TotalMemory() (uint64, error) {
	return sumMemory("/", func(d gpu.Device) uint64 { return d.VRAMTotal }, func(d gpu.Device) uint64 { return d.GTTTotal })
}

func sumMemory(root string, own, mapped func(gpu.Device) uint64) (uint64, error) {
	all, err := devicesBelow(root)
	var sum uint64
	for _, d := range all {
		if !d.Visible {
			continue
		}
		sum += own(d)
		if d.Integrated {
			sum += mapped(d)
		}
	}
	return sum, err
}

// Plan tells what Load would do with the model at path, and starts nothing. For
// many models, make a Machine once.
func Plan(path string, s Settings) (*plan.Plan, error) {
	m, err := NewMachine(s)
	if err != nil {
		return nil, err
	}
	return m.Plan(path)
}

// Machine is what models are planned for. Its fields may be changed before Plan
// is called, to plan for a machine that is not this one.
type Machine struct {
	// Devices are all GPUs, masks not applied.
	Devices []gpu.Device
	// Targets are those that the bundle has code for, nil without a bundle.
	Targets []gfx.Target
	// HostMemory is the main memory that may be used, in bytes; 0: not known.
	HostMemory uint64

	hipBLASLt []gfx.Target // that the bundle has its kernels for
	folders   []string     // of the host's ROCm, for a bundle that takes it
	barred    string       // why no GPU can be used, empty where one can
	settings  Settings
}

// NewMachine reads GPUs, memory and bundle once. A machine without a bundle is
// planned for all the same, with a warning to s.Log: every target counts as
// missing.
func NewMachine(s Settings) (*Machine, error) {
	found, err := FindBundle(s.Bundle)
	switch {
	case err == nil:
		m := machineWith(&s, found)
		return m, found.Close()
	case !errors.Is(err, ErrNoBundle):
		return nil, err
	}
	s.logger().Warn("planned without a bundle: every target counts as missing", "cause", err.Error())
	return machineWith(&s, nil), nil
}

// machineWith reads the machine, for a bundle that was found or none.
func machineWith(s *Settings, found *Bundle) *Machine {
	m := &Machine{settings: *s}
	m.look()
	if found != nil {
		m.take(found)
	}
	return m
}

// take notes what a bundle has for the machine, after look.
func (m *Machine) take(found *Bundle) {
	m.Targets, m.hipBLASLt = found.Targets(), found.hipBLASLt()
	if found.Manifest != nil && found.Manifest.Host != nil {
		m.takeROCm(found.Manifest)
	}
}

// look reads what changes: the GPUs with their free memory, and the host's.
func (m *Machine) look() {
	var err error
	root := m.settings.sysRoot()
	m.HostMemory = host.ReadMemory(root).Usable()
	m.Devices, err = gpu.NewFS(root).Devices()
	if err != nil && !errors.Is(err, gpu.ErrNoDriver) {
		m.settings.logger().Warn("not every gpu could be read", "cause", err.Error())
	}
}

// Imagine replaces the GPUs by a free discrete card of a target and size in
// bytes that need not exist, and hides the environment's masks. The bundle
// counts as made for the card where its targets are not known.
func (m *Machine) Imagine(target gfx.Target, vram uint64) error {
	if len(m.Targets) > 0 && !slices.Contains(m.Targets, target) && len(target.OverridesFor(m.Targets)) == 0 {
		return fmt.Errorf("%w: the bundle has no code for %s (it has %s)", ErrOption, target, gfx.Join(m.Targets, ", "))
	}
	if len(m.Targets) == 0 {
		m.Targets = []gfx.Target{target}
	}
	m.Devices = []gpu.Device{{
		Name: "imagined " + target.String(), PCI: "none", Target: target, UniqueID: 1,
		VRAMTotal: vram, MemoryKnown: true, Visible: true, Evidence: "imagined",
	}}
	m.settings.imagined, m.barred = true, ""
	return nil
}

// Plan plans for the model at path, a GGUF file or a folder that holds just one.
func (m *Machine) Plan(path string) (*plan.Plan, error) {
	path, err := modelFile(path)
	if err != nil {
		return nil, err
	}
	facts, err := openModel(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = facts.Close() }()
	return m.makePlan(path, facts)
}
