package machine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/speed"
)

// errNoDriver reports a machine without a Vulkan driver.
var errNoDriver = errors.New("no Vulkan driver is installed (no manifest in /usr/share/vulkan/icd.d); install mesa-vulkan-drivers, or nvidia-vulkan-icd for NVIDIA's own kernel driver")

// vulkanState is what Vulkan reports of the devices.
type vulkanState struct {
	read  bool
	found []gpu.Vulkan
	err   error
}

// ReadVulkan asks Vulkan's drivers for their devices, if the plan of the model with
// header f depends on them; with a nil f it asks in any case. It starts llama-server
// briefly, unless the answer is cached: PlanFile and Devices then know what Vulkan
// reports. A failure is no error: no device has Vulkan then, and the plan says why.
// ReadVulkan returns an error only if ctx has ended.
func (m *Machine) ReadVulkan(ctx context.Context, f *gguf.File, o plan.Options) error {
	if !m.HasVulkan || m.simulated || m.vulkan.read {
		return nil
	}
	if f != nil && !plan.NeedsVulkan(m.request(f, o)) {
		return nil
	}
	q := locate.VulkanQuery{State: m.driverState(), LibraryDirs: m.LibraryDirs, Log: m.config.logger()}
	if mask, set := gpu.VulkanMask(m.environ()); set {
		q.Mask = &mask
	}
	found, err := m.askVulkan(ctx, q)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	switch {
	case errors.Is(err, errNoDriver):
		m.config.logger().Info("Vulkan is not used", "cause", err.Error())
	case err != nil:
		m.config.logger().Warn("the Vulkan drivers cannot be used", "cause", err.Error())
	}
	m.vulkan = vulkanState{read: true, found: found, err: err}
	m.Devices = gpu.MatchVulkan(m.Devices, found)
	return nil
}

// askVulkan asks the bundle that the machine was read with.
func (m *Machine) askVulkan(ctx context.Context, q locate.VulkanQuery) ([]gpu.Vulkan, error) {
	if len(gpu.NewFS(m.config.root()).VulkanDrivers(m.environ())) == 0 {
		return nil, errNoDriver
	}
	if found, ok := locate.KnownVulkan(m.bundleDigest, q); ok {
		return found, nil
	}
	b, err := m.reopen()
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }()
	return b.Vulkan(ctx, q)
}

// driverState identifies the drivers and the devices that Vulkan's answer depends on.
func (m *Machine) driverState() string {
	fs := gpu.NewFS(m.config.root())
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", m.kernel(), m.driverDigest())
	cards, _ := fs.Cards() // the readable ones
	for _, d := range cards {
		fmt.Fprintf(&b, " %s=%04x:%04x %s %v", d.PCI, d.Vendor, d.DeviceID, d.RenderNode, fs.AccessProblem(d.RenderNode) == "")
	}
	for _, e := range m.environ() {
		name, _, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, "VK_") || strings.HasPrefix(name, "MESA_") || strings.HasPrefix(name, "RADV_") || name == "DRI_PRIME" || name == "XDG_DATA_DIRS" {
			b.WriteString(" " + e)
		}
	}
	return b.String()
}

// driverDigest returns a digest of the Vulkan drivers, empty if the bundle has no
// Vulkan module.
func (m *Machine) driverDigest() string {
	if !m.HasVulkan {
		return ""
	}
	fs := gpu.NewFS(m.config.root())
	return fs.DriversDigest(fs.VulkanDrivers(m.environ()))
}

// kernel returns the kernel's release.
func (m *Machine) kernel() string {
	raw, err := os.ReadFile(filepath.Join(m.config.root(), "proc/sys/kernel/osrelease"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// SpeedKey returns the key of what is known about a model's backends on a device.
func (m *Machine) SpeedKey(d gpu.Device, f *gguf.File) speed.Key {
	return speed.Key{
		Card: speed.CardName(d), Driver: m.driverDigest(), Kernel: m.kernel(), Bundle: m.bundleDigest,
		Architecture: f.Architecture(), Quantisation: f.Quantisation(),
	}
}

// verdicts returns what is known about a model on the devices, by [gpu.Device.ID].
func (m *Machine) verdicts(f *gguf.File) map[string]plan.Verdict {
	if m.simulated {
		return nil
	}
	var out map[string]plan.Verdict
	var key speed.Key
	for _, d := range m.Devices {
		if key.Kernel == "" {
			key = m.SpeedKey(d, f)
		}
		key.Card = speed.CardName(d)
		record, ok := m.config.Speed.Load(key)
		if !ok && m.failed[d.ID()] == nil {
			continue
		}
		v := plan.Verdict{Detail: record.Describe()}
		if fastest := record.Fastest(); len(fastest) > 0 {
			v.Best = plan.Backend(fastest[0].Backend)
		}
		v.Failed = maps.Clone(m.failed[d.ID()])
		for backend, cause := range record.Failed(time.Now()) {
			v.Failed = withEntry(v.Failed, plan.Backend(backend), cause)
		}
		if out == nil {
			out = map[string]plan.Verdict{}
		}
		out[d.ID()] = v
	}
	return out
}

// useServer sets what a llama-server that is not from a bundle says of itself. For the
// code of its GPU module its list of devices is taken.
func (m *Machine) useServer(facts locate.ServerFacts) {
	m.HasVulkan = true // its list may have Vulkan's devices only under a mask
	if !facts.Has("ROCm") {
		m.noGPU = "this llama-server lists no ROCm device"
		return
	}
	for _, d := range m.Devices {
		if d.Target != "" && !slices.Contains(m.Targets, d.Target) {
			m.Targets = append(m.Targets, d.Target)
		}
	}
	gfx.Sort(m.Targets)
	m.hipBLASLt = m.Targets // its own setting is left alone
}

// Failed notes that a backend failed with a model on devices: later plans of this
// machine do not use it there. With lasting set, neither do those of other machines and
// processes, until the failure is a month old or the model is measured.
func (m *Machine) Failed(devices []gpu.Device, f *gguf.File, backend plan.Backend, cause string, lasting bool) {
	for _, d := range devices {
		id := d.ID()
		m.failed = withEntry(m.failed, id, withEntry(m.failed[id], backend, cause))
		if !lasting {
			continue
		}
		if err := m.config.Speed.AddFailure(m.SpeedKey(d, f), string(backend), cause); err != nil {
			m.config.logger().Warn("the failure cannot be remembered", "cause", err.Error())
		}
	}
}

// withEntry returns a copy of a map with one more entry: copies of a Machine share maps.
func withEntry[K comparable, V any](old map[K]V, key K, value V) map[K]V {
	out := make(map[K]V, len(old)+1)
	maps.Copy(out, old)
	out[key] = value
	return out
}

// Vulkan returns the devices that ReadVulkan has found.
func (m *Machine) Vulkan() []gpu.Vulkan { return m.vulkan.found }

// VulkanProblem returns why ReadVulkan got no answer, nil if it got one or did not ask.
func (m *Machine) VulkanProblem() error { return m.vulkan.err }

// Records returns what was measured and what failed on this machine with its present
// kernel, drivers and bundle.
func (m *Machine) Records() ([]speed.Record, error) {
	all, err := m.config.Speed.List()
	kernel, driver := m.kernel(), m.driverDigest()
	return slices.DeleteFunc(all, func(r speed.Record) bool {
		return r.Kernel != kernel || r.Driver != driver || r.Bundle != m.bundleDigest
	}), err
}
