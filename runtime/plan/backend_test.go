package plan_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// withVulkan returns a device that a Vulkan driver offers, too.
func withVulkan(d gpu.Device, index int) gpu.Device {
	d.Vulkan = &gpu.Vulkan{Index: index, Description: d.Name + " (RADV)", Total: d.VRAMTotal, Free: d.VRAMFree()}
	return d
}

// venus returns a device that only Vulkan lists: a virtual machine's, or the one of a
// machine without /sys.
func venus(index int) gpu.Device {
	v := gpu.Vulkan{Index: index, Description: "Virtio-GPU Venus (AMD Radeon RX 7900 XTX)", Total: 24 * gib, Free: 23 * gib}
	return gpu.MatchVulkan(nil, []gpu.Vulkan{v})[0]
}

// lavapipe returns Mesa's software driver; requested if the environment names it.
func lavapipe(requested bool) gpu.Device {
	v := gpu.Vulkan{Description: "llvmpipe (LLVM 19.1.7, 256 bits)", Total: 30 * gib, Free: 30 * gib, Software: true, Requested: requested}
	return gpu.MatchVulkan(nil, []gpu.Vulkan{v})[0]
}

// navi21 returns a card that the bundle has no code for: RDNA 2.
func navi21(index int) gpu.Device {
	return card(index, "RX 6800", "gfx1030", 16368*plan.MiB, 30*plan.MiB)
}

// TestBackendOfPlan follows the numbered decisions of selectDevices.
func TestBackendOfPlan(t *testing.T) {
	measured := func(best plan.Backend) plan.Verdict {
		return plan.Verdict{Best: best, Detail: "measured on 2026-11-29: as the test says"}
	}
	failed := func(backends ...plan.Backend) plan.Verdict {
		v := plan.Verdict{Failed: map[plan.Backend]string{}}
		for _, b := range backends {
			v.Failed[b] = "gpu hang"
		}
		return v
	}
	const first = "0000:03:00.0"
	required := plan.Options{Devices: plan.Devices{Required: true}}
	for name, c := range map[string]struct {
		devices  []gpu.Device
		options  plan.Options
		verdicts map[string]plan.Verdict
		noModule bool
		want     plan.Backend
		why      string // in a reason
		err      error
	}{
		"HIP where its targets match":              {devices: []gpu.Device{withVulkan(xtx(0), 0)}, want: plan.BackendHIP, why: "no measurement speaks for another"},
		"a measurement for Vulkan":                 {devices: []gpu.Device{withVulkan(xtx(0), 0)}, verdicts: map[string]plan.Verdict{first: measured(plan.BackendVulkan)}, want: plan.BackendVulkan, why: "measured on 2026-11-29"},
		"a measurement for HIP":                    {devices: []gpu.Device{withVulkan(xtx(0), 0)}, verdicts: map[string]plan.Verdict{first: measured(plan.BackendHIP)}, want: plan.BackendHIP, why: "measured on 2026-11-29"},
		"a measurement for the CPU":                {devices: []gpu.Device{withVulkan(xtx(0), 0)}, verdicts: map[string]plan.Verdict{first: measured(plan.BackendCPU)}, want: plan.BackendCPU, why: "the CPU is faster"},
		"that of another card":                     {devices: []gpu.Device{withVulkan(xtx(0), 0)}, verdicts: map[string]plan.Verdict{"0000:09:00.0": measured(plan.BackendVulkan)}, want: plan.BackendHIP},
		"measured, but no driver now":              {devices: []gpu.Device{xtx(0)}, verdicts: map[string]plan.Verdict{first: measured(plan.BackendVulkan)}, want: plan.BackendHIP, why: "no Vulkan driver offers it"},
		"HIP failed":                               {devices: []gpu.Device{withVulkan(xtx(0), 0)}, verdicts: map[string]plan.Verdict{first: failed(plan.BackendHIP)}, want: plan.BackendVulkan, why: "HIP failed on this card: gpu hang"},
		"both failed":                              {devices: []gpu.Device{withVulkan(xtx(0), 0)}, verdicts: map[string]plan.Verdict{first: failed(plan.BackendHIP, plan.BackendVulkan)}, want: plan.BackendCPU, why: "Vulkan failed on this card"},
		"both failed, and a GPU is required":       {devices: []gpu.Device{withVulkan(xtx(0), 0)}, options: required, verdicts: map[string]plan.Verdict{first: failed(plan.BackendHIP, plan.BackendVulkan)}, want: plan.BackendHIP},
		"HIP failed, and there is no module":       {devices: []gpu.Device{xtx(0)}, verdicts: map[string]plan.Verdict{first: failed(plan.BackendHIP)}, noModule: true, want: plan.BackendCPU, why: "HIP failed on this card"},
		"a failed backend that is named":           {devices: []gpu.Device{withVulkan(xtx(0), 0)}, options: plan.Options{Backend: plan.BackendHIP}, verdicts: map[string]plan.Verdict{first: failed(plan.BackendHIP)}, want: plan.BackendHIP, why: "as the options ask"},
		"RDNA 2":                                   {devices: []gpu.Device{withVulkan(navi21(0), 0)}, want: plan.BackendVulkan, why: "the bundle has no code for gfx1030"},
		"RDNA 2, and a GPU is required":            {devices: []gpu.Device{withVulkan(navi21(0), 0)}, options: required, want: plan.BackendVulkan},
		"RDNA 2 without the module":                {devices: []gpu.Device{navi21(0)}, noModule: true, want: plan.BackendCPU},
		"RDNA 2 whose Vulkan failed":               {devices: []gpu.Device{withVulkan(navi21(0), 0)}, verdicts: map[string]plan.Verdict{first: failed(plan.BackendVulkan)}, want: plan.BackendCPU, why: "Vulkan failed on this card"},
		"an integrated GPU":                        {devices: []gpu.Device{withVulkan(raphael(0), 0)}, want: plan.BackendVulkan},
		"a card before an integrated GPU":          {devices: []gpu.Device{withVulkan(raphael(0), 1), withVulkan(navi21(1), 0)}, want: plan.BackendVulkan, why: "using RX 6800"},
		"a software driver":                        {devices: []gpu.Device{lavapipe(false)}, want: plan.BackendCPU, why: "it computes on the CPU"},
		"a software driver that is requested":      {devices: []gpu.Device{lavapipe(true)}, want: plan.BackendCPU, why: "it computes on the CPU"},
		"a software driver and its backend":        {devices: []gpu.Device{lavapipe(true)}, options: plan.Options{Backend: plan.BackendVulkan}, want: plan.BackendVulkan, why: "as the options ask"},
		"the backend without its driver requested": {devices: []gpu.Device{lavapipe(false)}, options: plan.Options{Backend: plan.BackendVulkan}, err: plan.ErrNoGPU, why: "set GGML_VK_VISIBLE_DEVICES"},
		"a device that only Vulkan lists":          {devices: []gpu.Device{venus(2)}, want: plan.BackendVulkan, why: "using Virtio-GPU Venus (AMD Radeon RX 7900 XTX) at vulkan2"},
		"it failed":                                {devices: []gpu.Device{venus(2)}, verdicts: map[string]plan.Verdict{"vulkan2": failed(plan.BackendVulkan)}, want: plan.BackendCPU, why: "Vulkan failed on this card"},
		"the CPU is faster than it":                {devices: []gpu.Device{venus(2)}, verdicts: map[string]plan.Verdict{"vulkan2": measured(plan.BackendCPU)}, want: plan.BackendCPU, why: "the CPU is faster"},
		"it failed, and there is another":          {devices: []gpu.Device{venus(0), venus(2)}, verdicts: map[string]plan.Verdict{"vulkan0": failed(plan.BackendVulkan)}, want: plan.BackendVulkan, why: "not using Virtio-GPU Venus (AMD Radeon RX 7900 XTX) at vulkan0: Vulkan failed on it: gpu hang"},
		"it is named":                              {devices: []gpu.Device{venus(0), venus(2)}, options: plan.Options{Devices: plan.Devices{ID: "vulkan2"}}, want: plan.BackendVulkan, why: "at vulkan2"},
		"HIP failed on one of two cards":           {devices: []gpu.Device{xtx(0), xt(1)}, verdicts: map[string]plan.Verdict{first: failed(plan.BackendHIP)}, want: plan.BackendHIP, why: "using RX 7800 XT"},
		"vulkan":                                   {devices: []gpu.Device{withVulkan(xtx(0), 0)}, options: plan.Options{Backend: plan.BackendVulkan}, want: plan.BackendVulkan},
		"vulkan without a card":                    {options: plan.Options{Backend: plan.BackendVulkan}, err: plan.ErrNoGPU, why: "no Vulkan driver offers a GPU"},
		"vulkan without the module":                {devices: []gpu.Device{xtx(0)}, options: plan.Options{Backend: plan.BackendVulkan}, noModule: true, err: plan.ErrNoGPU, why: "the bundle has no Vulkan module"},
		"hip without a card":                       {devices: []gpu.Device{withVulkan(navi21(0), 0)}, options: plan.Options{Backend: plan.BackendHIP}, err: plan.ErrNoGPU, why: "no code for gfx1030"},
		"cpu":                                      {devices: []gpu.Device{withVulkan(xtx(0), 0)}, options: plan.Options{Backend: plan.BackendCPU}, want: plan.BackendCPU},
		"cpu, and a GPU is required":               {options: plan.Options{Backend: plan.BackendCPU, Devices: plan.Devices{Required: true}}, err: plan.ErrInvalidOption},
		"hip without layers":                       {options: plan.Options{Backend: plan.BackendHIP, Layers: plan.CPUOnly}, err: plan.ErrInvalidOption},
		"a name that does not exist":               {options: plan.Options{Backend: "rocm"}, err: plan.ErrInvalidOption, why: "use auto, hip, vulkan or cpu"},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, "smollm2-135m-Q8_0", c.devices...)
			r.Options, r.Verdicts, r.Vulkan = c.options, c.verdicts, !c.noModule
			p, err := plan.Make(r)
			if !errors.Is(err, c.err) || (c.err == nil && err != nil) {
				t.Fatalf("%v, want %v", err, c.err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), c.why) {
					t.Errorf("%v, want %q", err, c.why)
				}
				return
			}
			if p.Backend != c.want || p.GPU != (c.want != plan.BackendCPU) {
				t.Errorf("%s, gpu %v; want %s; %q", p.Backend, p.GPU, c.want, p.Reasons)
			}
			if !strings.Contains(strings.Join(p.Reasons, "\n"), c.why) {
				t.Errorf("reasons %q, want %q", p.Reasons, c.why)
			}
		})
	}
}

// TestVulkanPlan: arguments, masks and memory are those of Vulkan.
func TestVulkanPlan(t *testing.T) {
	d := withVulkan(xtx(0), 2)
	d.VRAMUsed, d.ComputeUsed = 5*gib, gib // of which HIP would not see 4 GiB
	r := request(t, "smollm2-135m-Q8_0", d)
	r.Vulkan, r.Options.Backend = true, plan.BackendVulkan
	p := make1(t, r)
	args := strings.Join(p.Args, " ")
	if !strings.Contains(args, "--device Vulkan0 ") || !strings.Contains(args, "--fit-target 1024") {
		t.Errorf("arguments %s", args)
	}
	want := []string{"ROCR_VISIBLE_DEVICES=", "HIP_VISIBLE_DEVICES=", "VK_LOADER_LAYERS_DISABLE=~implicit~", "GGML_VK_VISIBLE_DEVICES=2"}
	if !slices.Equal(p.Env, want) || p.Target != "" {
		t.Errorf("environment %q, target %q", p.Env, p.Target)
	}
	if e := p.Devices[0]; e.Hidden != 0 || e.Free != d.VRAMFree() || e.Place != d.PCI {
		t.Errorf("memory %+v", e)
	}
	// The same card with HIP: no Vulkan driver is loaded, and the hidden memory counts.
	r.Options.Backend = plan.BackendHIP
	p = make1(t, r)
	if !slices.Contains(p.Env, "GGML_VK_VISIBLE_DEVICES=") || !slices.Contains(p.Env, "VK_LOADER_DRIVERS_DISABLE=*") || p.Devices[0].Hidden != 4*gib {
		t.Errorf("environment %q, memory %+v", p.Env, p.Devices[0])
	}
}

// TestVulkanMemory: an integrated GPU has the memory that it may map, a card that the
// kernel does not count what the driver reports, a software driver that of the host.
func TestVulkanMemory(t *testing.T) {
	apu := withVulkan(raphael(0), 0)
	apu.GTTTotal, apu.GTTUsed = 32*gib, gib
	nvidia := gpu.Device{Name: "NVIDIA", PCI: "0000:01:00.0", Vendor: 0x10de, Index: -1, Vulkan: &gpu.Vulkan{Total: 24 * gib, Free: 20 * gib}}
	for name, c := range map[string]struct {
		device      gpu.Device
		total, free uint64
	}{
		"integrated": {apu, apu.VRAMTotal + 32*gib, apu.VRAMFree() + 31*gib},
		"NVIDIA":     {nvidia, 24 * gib, 20 * gib},
		"software":   {lavapipe(true), 30 * gib, 16 * gib},
		"Intel":      {gpu.Device{Name: "Intel", PCI: "0000:00:02.0", Vendor: gpu.VendorIntel, Index: -1, Integrated: true, Vulkan: &gpu.Vulkan{Total: 24 * gib, Free: 24 * gib}}, 24 * gib, 16 * gib},
	} {
		r := request(t, "smollm2-135m-Q8_0", c.device)
		r.Vulkan, r.Options.Backend, r.HostTotal = true, plan.BackendVulkan, 16*gib
		if e := make1(t, r).Devices[0]; e.Total != c.total || e.Free != c.free {
			t.Errorf("%s: total %d, free %d; want %d and %d", name, e.Total, e.Free, c.total, c.free)
		}
	}
}

// TestNeedsVulkan: no driver is asked where the answer would change nothing.
func TestNeedsVulkan(t *testing.T) {
	const first = "0000:03:00.0"
	for name, c := range map[string]struct {
		devices  []gpu.Device
		options  plan.Options
		verdicts map[string]plan.Verdict
		module   bool
		want     bool
	}{
		"HIP suffices":       {[]gpu.Device{xtx(0)}, plan.Options{}, nil, true, false},
		"no module":          {nil, plan.Options{}, nil, false, false},
		"no card for HIP":    {[]gpu.Device{navi21(0)}, plan.Options{}, nil, true, true},
		"no card at all":     {nil, plan.Options{}, nil, true, true},
		"integrated only":    {[]gpu.Device{raphael(0)}, plan.Options{}, nil, true, true},
		"asked for":          {[]gpu.Device{xtx(0)}, plan.Options{Backend: plan.BackendVulkan}, nil, true, true},
		"asked for HIP":      {[]gpu.Device{navi21(0)}, plan.Options{Backend: plan.BackendHIP}, nil, true, false},
		"asked for the CPU":  {nil, plan.Options{Backend: plan.BackendCPU}, nil, true, false},
		"no layers":          {nil, plan.Options{Layers: plan.CPUOnly}, nil, true, false},
		"Vulkan was faster":  {[]gpu.Device{xtx(0)}, plan.Options{}, map[string]plan.Verdict{first: {Best: plan.BackendVulkan}}, true, true},
		"HIP failed":         {[]gpu.Device{xtx(0)}, plan.Options{}, map[string]plan.Verdict{first: {Failed: map[plan.Backend]string{plan.BackendHIP: "x"}}}, true, true},
		"HIP was faster":     {[]gpu.Device{xtx(0)}, plan.Options{}, map[string]plan.Verdict{first: {Best: plan.BackendHIP}}, true, false},
		"Vulkan had failed":  {[]gpu.Device{xtx(0)}, plan.Options{}, map[string]plan.Verdict{first: {Failed: map[plan.Backend]string{plan.BackendVulkan: "x"}}}, true, false},
		"the mask hides HIP": {nil, plan.Options{Devices: plan.Devices{ID: "0000:09:00.0"}}, nil, true, true},
	} {
		r := plan.Request{Devices: c.devices, BundleTargets: request(t, "smollm2-135m-Q8_0").BundleTargets, Vulkan: c.module, Options: c.options, Verdicts: c.verdicts}
		if got := plan.NeedsVulkan(r); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestMaskHidesCardFromVulkan: a mask of HIP speaks of the same card.
func TestMaskHidesCardFromVulkan(t *testing.T) {
	r := request(t, "smollm2-135m-Q8_0", withVulkan(xtx(0), 0), withVulkan(xt(1), 1))
	r.Vulkan, r.Options.Backend, r.Environ = true, plan.BackendVulkan, []string{"ROCR_VISIBLE_DEVICES=1"}
	p := make1(t, r)
	if !slices.Contains(p.Env, "GGML_VK_VISIBLE_DEVICES=1") || p.Devices[0].Place != "0000:04:00.0" {
		t.Errorf("environment %q, %+v", p.Env, p.Devices[0])
	}
	if !strings.Contains(strings.Join(p.Reasons, "\n"), "hidden by ROCR_VISIBLE_DEVICES") {
		t.Errorf("reasons %q", p.Reasons)
	}
}
