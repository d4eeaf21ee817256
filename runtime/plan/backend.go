package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

// Backend is the part of llama-server that computes: one of its modules.
type Backend string

// The backends. The empty one is BackendAuto.
const (
	BackendAuto   Backend = "auto"   // the best for the card and the model
	BackendHIP    Backend = "hip"    // ROCm: the bundle has code for the card's target
	BackendVulkan Backend = "vulkan" // a Vulkan driver of the machine offers the card
	BackendCPU    Backend = "cpu"
)

// Backends returns the values of Options.Backend.
func Backends() []Backend { return []Backend{BackendAuto, BackendHIP, BackendVulkan, BackendCPU} }

// String returns the backend as people write it.
func (b Backend) String() string {
	switch b {
	case BackendHIP:
		return "HIP"
	case BackendVulkan:
		return "Vulkan"
	case BackendCPU:
		return "the CPU"
	}
	return string(cmp.Or(b, BackendAuto))
}

// devicePrefix returns the beginning of the names that llama-server gives to the
// backend's devices.
func (b Backend) devicePrefix() string {
	if b == BackendVulkan {
		return "Vulkan"
	}
	return "ROCm"
}

// Verdict is what earlier runs with the same model architecture and quantisation on a
// card say about its backends.
type Verdict struct {
	// Best is the backend that was fastest when it was measured; empty without a
	// measurement. Detail has the figures, in words.
	Best   Backend
	Detail string
	// Failed has the backends that failed, with the cause.
	Failed map[Backend]string
}

// empty reports whether nothing is known.
func (v Verdict) empty() bool { return v.Best == "" && len(v.Failed) == 0 }

// hasFailed reports whether a backend failed on a candidate and may not be used there:
// options that name a backend use it all the same.
func (r *Request) hasFailed(c candidate, b Backend) bool {
	return r.Options.auto() && r.Verdicts[c.ID()].Failed[b] != ""
}

// auto reports whether the options leave the backend open.
func (o Options) auto() bool { return o.Backend == "" || o.Backend == BackendAuto }

// mayUseCPU reports whether the options allow a plan without a GPU.
func (o Options) mayUseCPU() bool {
	return o.auto() && !o.Devices.Required && o.Devices.Count <= 1 && (o.Layers == AutoLayers || o.Layers == CPUOnly)
}

// NeedsVulkan reports whether the plan for r depends on what Vulkan reports of the
// devices. It does not where HIP can use a card and nothing speaks against it, which
// saves the start of a program that asks Vulkan's drivers.
func NeedsVulkan(r Request) bool {
	o := r.Options
	if !r.Vulkan || o.Layers == CPUOnly || o.Backend == BackendCPU || o.Backend == BackendHIP {
		return false
	}
	if o.Backend == BackendVulkan {
		return true
	}
	sel, err := selectHIP(&r)
	if err != nil || len(sel.devices) == 0 || sel.devices[0].Integrated {
		return true
	}
	v := r.Verdicts[sel.devices[0].ID()]
	return v.Best == BackendVulkan || v.Failed[BackendHIP] != ""
}

// selectDevices chooses the backend and the devices, in this order:
//
//  1. The options ask for the CPU: no device. Otherwise it is an error if they name a
//     device that does not exist.
//  2. The options name a backend: its devices, or none.
//  3. HIP can use a discrete card: HIP, unless it failed on that card before or Vulkan
//     was measured to be faster, and Vulkan can use the card.
//  4. Vulkan can use a card, and software drivers do not count: Vulkan.
//  5. HIP can use an integrated GPU: HIP.
//  6. The CPU.
func selectDevices(r *Request) (selection, error) {
	switch o := r.Options; {
	case o.Layers == CPUOnly:
		return selection{backend: BackendCPU, why: "the options ask for the CPU (0 layers on the GPU)"}, nil
	case o.Backend == BackendCPU:
		return selection{backend: BackendCPU, why: "the options ask for the CPU"}, nil
	}
	if err := r.checkDevice(); err != nil {
		return selection{}, err
	}
	switch r.Options.Backend {
	case BackendHIP:
		return fixed(selectHIP(r))
	case BackendVulkan:
		return fixed(selectVulkan(r, nil))
	case "", BackendAuto, BackendCPU:
	}
	hip, err := selectHIP(r)
	switch {
	case err != nil:
		return hip, err
	case !r.Vulkan && (len(hip.devices) == 0 || r.Verdicts[hip.devices[0].ID()].empty()):
		return orCPU(hip), nil
	case len(hip.devices) > 0 && (!hip.devices[0].Integrated || !r.Vulkan):
		return preferred(r, hip), nil
	}
	vulkan, err := selectVulkan(r, nil)
	if err != nil {
		return vulkan, err
	}
	return withoutDiscreteHIP(r, hip, vulkan), nil
}

// fixed returns the selection of a backend that the options name. Without a device it is
// an error.
func fixed(s selection, err error) (selection, error) {
	if err == nil && len(s.devices) == 0 {
		err = &OptionError{"Backend", fmt.Errorf("%w for the backend %s: %s", ErrNoGPU, s.backend, s.why)}
	}
	if err == nil {
		s.reasons = append(s.reasons, fmt.Sprintf("the backend is %s, as the options ask", s.backend))
	}
	return s, err
}

// orCPU returns a selection without devices as one of the CPU.
func orCPU(s selection) selection {
	if len(s.devices) == 0 {
		s.backend = BackendCPU
	}
	return s
}

// preferred returns HIP or Vulkan on the card that HIP would use.
func preferred(r *Request, hip selection) selection {
	v := r.Verdicts[hip.devices[0].ID()]
	failed := v.Failed[BackendHIP]
	if v.Best == BackendCPU && r.Options.mayUseCPU() {
		return selection{backend: BackendCPU, why: "the CPU is faster: " + v.Detail, reasons: hip.reasons}
	}
	if failed == "" && v.Best != BackendVulkan {
		why := "the backend is HIP: the bundle has code for the card, and no measurement speaks for another (go-rocm bench measures)"
		if v.Best == BackendHIP {
			why = "the backend is HIP: " + v.Detail
		}
		hip.reasons = append(hip.reasons, why)
		return hip
	}
	vulkan, err := selectVulkan(r, hip.devices)
	switch {
	case err == nil && len(vulkan.devices) > 0 && v.Failed[BackendVulkan] == "":
		why := v.Detail
		if failed != "" {
			why = "HIP failed on this card: " + failed
		}
		vulkan.reasons = append(vulkan.reasons, "the backend is Vulkan: "+why)
		return vulkan
	case failed == "" || !r.Options.mayUseCPU():
		why := vulkan.why
		if err != nil {
			why = err.Error()
		}
		if failed := v.Failed[BackendVulkan]; failed != "" {
			why = "it failed on this card: " + failed
		}
		hip.reasons = append(hip.reasons, "the backend is HIP although Vulkan would be preferred: "+why)
		return hip
	}
	return selection{backend: BackendCPU, why: failures(v), reasons: hip.reasons}
}

// withoutDiscreteHIP returns the selection where HIP has no discrete card.
func withoutDiscreteHIP(r *Request, hip, vulkan selection) selection {
	switch {
	case len(vulkan.devices) == 0 && len(hip.devices) == 0:
		s := selection{backend: BackendCPU, why: hip.why, reasons: hip.reasons}
		if vulkan.why != "" {
			s.why += "; Vulkan: " + vulkan.why
		}
		return s
	case len(vulkan.devices) == 0, len(hip.devices) > 0 && vulkan.devices[0].Integrated && len(r.Verdicts[hip.devices[0].ID()].Failed) == 0:
		return preferred(r, hip)
	}
	v := r.Verdicts[vulkan.devices[0].ID()]
	if v.Best == BackendCPU && r.Options.mayUseCPU() {
		return selection{backend: BackendCPU, why: "the CPU is faster: " + v.Detail, reasons: vulkan.reasons}
	}
	if v.Failed[BackendVulkan] != "" && r.Options.mayUseCPU() {
		return selection{backend: BackendCPU, why: failures(v), reasons: vulkan.reasons}
	}
	why := hip.why
	if why == "" {
		why = "HIP has an integrated GPU only"
	}
	vulkan.reasons = append(vulkan.reasons, "the backend is Vulkan: HIP cannot be used ("+why+")")
	return vulkan
}

// failures describes the failed backends.
func failures(v Verdict) string {
	var out []string
	for _, b := range slices.Sorted(maps.Keys(v.Failed)) {
		out = append(out, fmt.Sprintf("%s failed on this card: %s", b, v.Failed[b]))
	}
	return strings.Join(out, "; ")
}

// selectVulkan chooses devices that a Vulkan driver offers. With among, it considers
// only these.
func selectVulkan(r *Request, among []gpu.Device) (selection, error) {
	sel := selection{backend: BackendVulkan}
	if !r.Vulkan {
		sel.why = "the bundle has no Vulkan module"
		return sel, nil
	}
	o := r.Options
	mask := gpu.NewMask(r.Environ)
	var (
		cands    []candidate
		rejected []string
	)
	devices := mask.Apply(r.Devices)
	for _, d := range devices {
		if o.Devices.ID != "" && !hasID(d, o.Devices.ID) {
			continue
		}
		if among != nil && !slices.ContainsFunc(among, func(other gpu.Device) bool { return other.ID() == d.ID() }) {
			continue
		}
		if why := vulkanProblem(d, o); why != "" {
			rejected = append(rejected, describeDevice(d)+": "+why)
			continue
		}
		d.VRAMTotal, d.VRAMUsed = d.VulkanMemory()
		cands = append(cands, candidate{Device: d, native: true})
	}
	if len(cands) == 0 {
		sel.why = noneReason(devices, rejected)
		if len(devices) == 0 {
			sel.why = "no Vulkan driver offers a GPU"
		}
		return sel, nil
	}
	slices.SortStableFunc(cands, func(a, b candidate) int {
		return cmp.Or(
			boolFirst(!a.Vulkan.Software, !b.Vulkan.Software),
			boolFirst(!a.Integrated, !b.Integrated),
			boolFirst(!r.hasFailed(a, BackendVulkan), !r.hasFailed(b, BackendVulkan)),
			cmp.Compare(b.VRAMFree(), a.VRAMFree()),
			cmp.Compare(a.Vulkan.Index, b.Vulkan.Index),
		)
	})
	chosen, err := bestEqual(cands, o.Devices.Count)
	if err != nil {
		return sel, err
	}
	for _, c := range chosen {
		sel.devices = append(sel.devices, c.Device)
	}
	sel.addReasons(r, cands, chosen, rejected, mask)
	return sel, nil
}

// vulkanProblem returns why Vulkan does not use a device, empty if it may.
func vulkanProblem(d gpu.Device, o Options) string {
	switch v := d.Vulkan; {
	case d.Masked != "":
		return d.UnusableReason
	case v == nil:
		return "no Vulkan driver offers it"
	case v.Software && !v.Requested:
		return "it computes on the CPU; set " + gpu.EnvVulkan + " to use it all the same"
	case v.Software && o.Backend != BackendVulkan:
		return "it computes on the CPU"
	case v.Unused != "":
		return v.Unused
	}
	return ""
}

// describeDevice names a device and its place.
func describeDevice(d gpu.Device) string {
	return d.Name + " at " + d.ID()
}
