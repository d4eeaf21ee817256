package plan_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// TestSelection checks the chosen device, its masks, and the reason.
func TestSelection(t *testing.T) {
	hidden := xtx(0)
	hidden.Visible, hidden.UnusableReason = false, "no permission for /dev/kfd; join its group"
	busy := xtx(0)
	busy.VRAMUsed = 20 * gib
	for _, c := range []struct {
		name    string
		devices []gpu.Device
		environ []string
		change  func(*plan.Options)
		env     []string // expected beginning of Env
		reason  string   // part of a reason or of Fallback
		gpu     bool
	}{
		{"discrete before integrated", []gpu.Device{raphael(0), xtx(1)}, nil, nil, []string{"ROCR_VISIBLE_DEVICES=GPU-b85e402c0fb37501", "HIP_VISIBLE_DEVICES=0"}, "using RX 7900 XTX", true},
		{"most free memory", []gpu.Device{xt(0), xtx(1)}, nil, nil, []string{"ROCR_VISIBLE_DEVICES=GPU-b85e402c0fb37501"}, "not using RX 7800 XT at 0000:03:00.0: it has less free memory", true},
		{"free, not total", []gpu.Device{busy, xt(1)}, nil, nil, []string{"ROCR_VISIBLE_DEVICES=GPU-b85e402c0fb37501"}, "using RX 7800 XT", true},
		{"named by address", []gpu.Device{xtx(0), xt(1)}, nil, func(o *plan.Options) { o.Devices.ID = "0000:04:00.0" }, []string{"ROCR_VISIBLE_DEVICES=GPU-b85e402c0fb37501"}, "using RX 7800 XT", true},
		{"named by id", []gpu.Device{xtx(0), xt(1)}, nil, func(o *plan.Options) { o.Devices.ID = "gpu-B85E402C0FB37501" }, []string{"ROCR_VISIBLE_DEVICES=GPU-b85e402c0fb37501"}, "using RX 7800 XT", true},
		{"inherited mask", []gpu.Device{xtx(0), xt(1)}, []string{"ROCR_VISIBLE_DEVICES=1"}, nil, []string{"ROCR_VISIBLE_DEVICES=GPU-b85e402c0fb37501", "HIP_VISIBLE_DEVICES=0"}, "hidden by ROCR_VISIBLE_DEVICES", true},
		{"inherited mask by position", []gpu.Device{raphael(0), xtx(1)}, []string{"HIP_VISIBLE_DEVICES=1"}, nil, []string{"ROCR_VISIBLE_DEVICES=GPU-b85e402c0fb37501"}, "masks in the environment", true},
		{"mask hides all", []gpu.Device{xtx(0)}, []string{"ROCR_VISIBLE_DEVICES="}, nil, []string{"ROCR_VISIBLE_DEVICES=", "HIP_VISIBLE_DEVICES="}, "hidden by ROCR_VISIBLE_DEVICES", false},
		{"no permission", []gpu.Device{hidden}, nil, nil, []string{"ROCR_VISIBLE_DEVICES="}, "join its group", false},
		{"unknown target", []gpu.Device{card(0, "RX 6800", "gfx1030", 16*gib, 0)}, nil, nil, []string{"ROCR_VISIBLE_DEVICES="}, "the bundle has no code for gfx1030 (it has gfx1100, gfx1101)", false},
		{"relative, not allowed", []gpu.Device{card(0, "RX 7600", "gfx1102", 8*gib, 0)}, nil, nil, []string{"ROCR_VISIBLE_DEVICES="}, "its relative gfx1100 may work", false},
		{"relative, allowed", []gpu.Device{card(0, "RX 7600", "gfx1102", 8*gib, 0)}, nil, func(o *plan.Options) { o.Devices.Override = plan.OverrideAuto }, []string{"ROCR_VISIBLE_DEVICES=GPU-b85e402c0fb37500", "HIP_VISIBLE_DEVICES=0", "HSA_OVERRIDE_GFX_VERSION=11.0.0"}, "AMD does not support this", true},
		{"forced version", []gpu.Device{card(0, "RX 6800", "gfx1030", 16*gib, 0)}, nil, func(o *plan.Options) { o.Devices.Override = "11.0.1" }, []string{"ROCR_VISIBLE_DEVICES=GPU-b85e402c0fb37500", "HIP_VISIBLE_DEVICES=0", "HSA_OVERRIDE_GFX_VERSION=11.0.1"}, "runs code for gfx1101", true},
		{"forced to a missing target", []gpu.Device{xtx(0)}, nil, func(o *plan.Options) { o.Devices.Override = "10.3.0" }, []string{"ROCR_VISIBLE_DEVICES="}, "the override 10.3.0 makes it gfx1030", false},
		{"native before overridden", []gpu.Device{card(0, "RX 7600", "gfx1102", 40*gib, 0), xt(1)}, nil, func(o *plan.Options) { o.Devices.Override = plan.OverrideAuto }, []string{"ROCR_VISIBLE_DEVICES=GPU-b85e402c0fb37501"}, "it needs an override", true},
		{"integrated when alone and served", []gpu.Device{func() gpu.Device { d := raphael(0); d.Target = gfx.GFX1100; d.VRAMTotal = 32 * gib; return d }()}, nil, nil, []string{"ROCR_VISIBLE_DEVICES=0", "HIP_VISIBLE_DEVICES=0"}, "integrated", true},
		{"two equal cards", []gpu.Device{xtx(0), xt(1), xtx(2)}, nil, func(o *plan.Options) { o.Devices.Count = 2 }, []string{"ROCR_VISIBLE_DEVICES=GPU-b85e402c0fb37500,GPU-b85e402c0fb37502", "HIP_VISIBLE_DEVICES=0,1"}, "using RX 7900 XTX at 0000:05:00.0", true},
		{"cpu asked for", []gpu.Device{xtx(0)}, nil, func(o *plan.Options) { o.Layers = plan.CPUOnly }, []string{"ROCR_VISIBLE_DEVICES=", "HIP_VISIBLE_DEVICES="}, "ask for the CPU", false},
		{"nothing there", nil, nil, nil, []string{"ROCR_VISIBLE_DEVICES="}, "no AMD GPU was found", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := request(t, "smollm2-135m-Q8_0", c.devices...)
			r.Environ = c.environ
			if c.change != nil {
				c.change(&r.Options)
			}
			p := make1(t, r)
			if p.GPU != c.gpu || (p.Fallback == "") != c.gpu {
				t.Errorf("gpu %v, fallback %q", p.GPU, p.Fallback)
			}
			if len(p.Env) < len(c.env) || !slices.Equal(p.Env[:len(c.env)], c.env) {
				t.Errorf("env %q, want %q", p.Env, c.env)
			}
			if all := strings.Join(p.Reasons, "\n"); !strings.Contains(all, c.reason) {
				t.Errorf("reasons lack %q:\n%s", c.reason, all)
			}
			if none := slices.Contains(p.Args, "none"); none == c.gpu {
				t.Errorf("args %q", p.Args)
			}
			// If a GPU is required, the same option fails with the same reason.
			r.Options.Devices.Required = true
			if _, err := plan.Make(r); (err == nil) != c.gpu || (err != nil && (!errors.Is(err, plan.ErrNoGPU) || !strings.Contains(err.Error(), c.reason))) {
				t.Errorf("with a GPU required: %v", err)
			}
		})
	}
	r := request(t, "smollm2-135m-Q8_0", xtx(0), xt(1))
	r.Options.Devices.Count = 2
	if _, err := plan.Make(r); !errors.Is(err, plan.ErrNoGPU) {
		t.Errorf("two equal cards of two different ones: %v", err)
	}
}

// TestNamedDeviceMustExist checks that a device which does not exist is an error that lists
// those that do, whatever the backend, unless the options ask for the CPU.
func TestNamedDeviceMustExist(t *testing.T) {
	for name, c := range map[string]struct {
		devices []gpu.Device
		change  func(*plan.Options)
		want    string // empty: no error
	}{
		"another card": {devices: []gpu.Device{xtx(0), xt(1)}, want: "there are: RX 7900 XTX at 0000:03:00.0, RX 7800 XT at 0000:04:00.0"},
		"no card":      {want: "this machine has no GPU"},
		"hip":          {devices: []gpu.Device{xtx(0)}, change: func(o *plan.Options) { o.Backend = plan.BackendHIP }, want: "at 0000:03:00.0"},
		"vulkan":       {devices: []gpu.Device{xtx(0)}, change: func(o *plan.Options) { o.Backend = plan.BackendVulkan }, want: "at 0000:03:00.0"},
		"no layers":    {devices: []gpu.Device{xtx(0)}, change: func(o *plan.Options) { o.Layers = plan.CPUOnly }},
		"cpu":          {devices: []gpu.Device{xtx(0)}, change: func(o *plan.Options) { o.Backend = plan.BackendCPU }},
	} {
		r := request(t, "smollm2-135m-Q8_0", c.devices...)
		r.Options.Devices.ID = "0000:99:00.0"
		if c.change != nil {
			c.change(&r.Options)
		}
		p, err := plan.Make(r)
		var option *plan.OptionError
		switch {
		case c.want == "" && (err != nil || p.GPU):
			t.Errorf("%s: %v, want a plan for the CPU", name, err)
		case c.want != "" && (!errors.Is(err, plan.ErrNoGPU) || !errors.As(err, &option) || option.Option != "Devices.ID" || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want ErrNoGPU about Devices.ID with %q", name, err, c.want)
		}
	}
}

// TestSeveralGPUsAreNeverNone checks that two cards are an error on a machine without any,
// as they are on one with a single card.
func TestSeveralGPUsAreNeverNone(t *testing.T) {
	r := request(t, "smollm2-135m-Q8_0")
	r.Options.Devices.Count = 2
	var option *plan.OptionError
	if _, err := plan.Make(r); !errors.Is(err, plan.ErrNoGPU) || !errors.As(err, &option) || option.Option != "Devices.Count" {
		t.Errorf("two cards of none: %v", err)
	}
	r.Options.Layers = plan.CPUOnly // the last step of a ladder
	if p := make1(t, r); p.GPU {
		t.Errorf("on the CPU: %q", p.Reasons)
	}
}

// TestNoGPU checks that the plan reports why no GPU can be used, and that a required
// GPU fails with that reason.
func TestNoGPU(t *testing.T) {
	const why = "the host's ROCm cannot be used: libamdhip64.so.6 is missing"
	for _, devices := range [][]gpu.Device{nil, {xtx(0)}} {
		r := request(t, "smollm2-135m-Q8_0", devices...)
		r.NoGPU = why
		if p := make1(t, r); p.GPU || p.Fallback != why {
			t.Errorf("%d devices: gpu %v, fallback %q", len(devices), p.GPU, p.Fallback)
		}
		r.Options.Devices.Required = true
		if _, err := plan.Make(r); !errors.Is(err, plan.ErrNoGPU) || !strings.Contains(err.Error(), why) {
			t.Errorf("%d devices: got %v, want ErrNoGPU that says why", len(devices), err)
		}
	}
}

// TestOverrideInEnvironment checks that the plan is for the card's own target, or
// that of the options, whatever the environment contains, and that it says so.
func TestOverrideInEnvironment(t *testing.T) {
	related := card(0, "RX 7600", "gfx1102", 8*gib, 0)
	for name, c := range map[string]struct {
		device gpu.Device
		option plan.Override
		target gfx.Target
	}{
		"native":             {xtx(0), plan.OverrideOff, gfx.GFX1100},
		"related":            {related, plan.OverrideOff, ""},
		"related, allowed":   {related, plan.OverrideAuto, gfx.GFX1100},
		"the options' other": {related, "11.0.1", gfx.GFX1101},
	} {
		for _, set := range []string{"HSA_OVERRIDE_GFX_VERSION=10.3.0", "HSA_OVERRIDE_GFX_VERSION_1=10.3.0"} {
			r := request(t, "smollm2-135m-Q8_0", c.device)
			r.Environ, r.Options.Devices.Override = []string{"HSA_OVERRIDE_GFX_VERSIONS=x", set}, c.option
			p := make1(t, r)
			if p.Target != c.target || p.GPU != (c.target != "") {
				t.Errorf("%s, %s: target %q, gpu %v", name, set, p.Target, p.GPU)
			}
			if said := strings.Join(p.Reasons, "\n"); !strings.Contains(said, set+" in the environment is not passed on") || strings.Contains(said, "VERSIONS") {
				t.Errorf("%s, %s: reasons %s", name, set, said)
			}
			if slices.ContainsFunc(p.Env, func(e string) bool { return strings.Contains(e, "10.3.0") }) {
				t.Errorf("%s, %s: env %q", name, set, p.Env)
			}
		}
	}
}
