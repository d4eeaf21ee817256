package plan

import (
	"fmt"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

// Estimate is the expected memory of one place, in bytes.
type Estimate struct {
	Name      string `json:"name"`            // product and address, or "host"
	Place     string `json:"place,omitempty"` // gpu.Device.ID: the PCI address, if there is one
	Weights   uint64 `json:"weights"`
	KV        uint64 `json:"kv"` // attention cache and recurrent state
	Compute   uint64 `json:"compute"`
	Projector uint64 `json:"projector,omitempty"`
	Adapters  uint64 `json:"adapters,omitempty"`
	Draft     uint64 `json:"draft,omitempty"`
	Margin    uint64 `json:"margin,omitempty"` // stays free
	Hidden    uint64 `json:"hidden,omitempty"` // used by graphics programs, which HIP does not see
	Free      uint64 `json:"free,omitempty"`   // free before loading
	Total     uint64 `json:"total,omitempty"`  // size of the memory
	Layers    int    `json:"layers"`
}

// Used returns the memory that the model is expected to use, without margins.
func (e Estimate) Used() uint64 {
	sum := plus(plus(e.Weights, e.KV), e.Compute)
	return plus(sum, plus(plus(e.Projector, e.Adapters), e.Draft))
}

// Plan is how to run a model.
type Plan struct {
	Args        []string   `json:"args"`               // for llama-server, without its address
	Env         []string   `json:"env"`                // KEY=VALUE, in addition to the child's
	Reasons     []string   `json:"reasons"`            // plain sentences, most important first
	Backend     Backend    `json:"backend"`            // what computes: BackendHIP, BackendVulkan or BackendCPU
	GPU         bool       `json:"gpu"`                // a GPU is used
	Fits        bool       `json:"fits"`               // everything is on the GPU, with the margin
	Overfull    bool       `json:"overfull,omitempty"` // the requested layers need more than the free memory
	Fallback    string     `json:"fallback,omitempty"`
	Layers      int        `json:"layers"`       // expected on GPUs at least in part, output layer included
	WholeLayers int        `json:"whole_layers"` // of these, with all their weights
	TotalLayers int        `json:"total_layers"` // output layer included
	Context     int        `json:"context"`      // total tokens for which the estimate holds
	Slots       int        `json:"slots"`
	Needs       uint64     `json:"needs"` // bytes if the whole model were in one place, without projector, adapters and draft
	Devices     []Estimate `json:"devices"`
	Host        Estimate   `json:"host"`
	// Target is the target whose code the devices run with HIP. With an override, it is
	// not their own. Empty for other backends.
	Target gfx.Target `json:"target,omitempty"`
	// Chosen lists the devices in use, in the order in which the server numbers them.
	Chosen  []gpu.Device `json:"-"`
	Request Request      `json:"-"`
}

// Make returns the plan for r. Its error wraps ErrInvalidOption if an option is out
// of range, ErrNoGPU if no GPU can be used and the options require one, or set a number
// of layers or of GPUs, or if no device has the name in Devices.ID, and ErrDoesNotFit if
// the host has too little memory.
func Make(r Request) (*Plan, error) {
	if err := r.Options.Validate(); err != nil {
		return nil, err
	}
	m, err := newModel(r.Model)
	if err != nil {
		return nil, &OptionError{"Model", err}
	}
	sel, err := selectDevices(&r)
	if err != nil {
		return nil, err
	}
	p := &Plan{Request: r}
	if len(sel.devices) == 0 {
		switch n := r.Options.Layers; {
		case r.Options.Devices.Count > 1 && n != CPUOnly && r.Options.Backend != BackendCPU:
			return nil, &OptionError{"Devices.Count", fmt.Errorf("%w: %d equal cards requested, none found: %s", ErrNoGPU, r.Options.Devices.Count, sel.why)}
		case r.Options.Devices.Required:
			return nil, &OptionError{"Devices.Required", fmt.Errorf("%w: %s", ErrNoGPU, sel.why)}
		case n > 0 || n == AllLayers:
			return nil, &OptionError{"Layers", fmt.Errorf("%w for the requested GPU layers: %s; use the default number of layers to run on the CPU without a GPU", ErrNoGPU, sel.why)}
		}
		p.Fallback = sel.why
		p.Reasons = append(p.Reasons, "running on the CPU: "+sel.why)
	}
	p.Backend, p.GPU, p.Chosen, p.Target = sel.backend, len(sel.devices) > 0, sel.devices, sel.target
	p.Reasons = append(p.Reasons, sel.reasons...)
	if err := p.estimate(m, sel.devices); err != nil {
		return nil, err
	}
	p.arguments(sel)
	p.environment(sel)
	return p, nil
}

// Software reports whether the plan's device is a driver that computes on the CPU.
func (p *Plan) Software() bool {
	return len(p.Chosen) > 0 && p.Chosen[0].Vulkan != nil && p.Chosen[0].Vulkan.Software
}

// arguments sets the arguments of llama-server. It omits those that --fit may
// choose.
func (p *Plan) arguments(sel selection) {
	o := p.Request.Options
	add := func(args ...string) { p.Args = append(p.Args, args...) }
	add("--model", p.Request.ModelPath)
	if o.Context > 0 {
		add("--ctx-size", strconv.Itoa(o.Context))
	}
	if o.Slots > 0 {
		add("--parallel", strconv.Itoa(o.Slots))
		if !o.SplitContext {
			add("--kv-unified")
		}
	}
	if o.Batch > logicalBatch {
		add("--batch-size", strconv.Itoa(o.Batch)) // --batch-size limits --ubatch-size
	}
	if o.Batch > 0 {
		add("--ubatch-size", strconv.Itoa(o.Batch))
	}
	if o.Cache.KeyType != "" {
		add("--cache-type-k", o.Cache.KeyType)
	}
	if o.Cache.ValueType != "" {
		add("--cache-type-v", o.Cache.ValueType)
	}
	if o.Cache.FullSWA {
		add("--swa-full")
	}
	if o.NoFlashAttention {
		add("--flash-attn", "off")
	}
	switch {
	case o.Cache.HostLimit > 0:
		add("--cache-ram", strconv.FormatInt((o.Cache.HostLimit+MiB-1)/MiB, 10))
	case o.Cache.HostLimit < 0:
		add("--cache-ram", "0")
	}
	if o.Projector != "" {
		add("--mmproj", o.Projector)
	}
	for _, a := range o.Adapters {
		add("--lora", listItem(a))
	}
	if o.Draft != "" {
		add("--model-draft", o.Draft)
	}
	p.placement(sel, add)
}

// listItem returns a value that llama-server reads as one element of a list:
// otherwise it splits it at commas (parse_csv_row in common/arg.cpp).
func listItem(s string) string {
	if !strings.Contains(s, ",") && !strings.HasPrefix(s, `"`) {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

// placement adds the arguments for devices, layers and margins.
func (p *Plan) placement(sel selection, add func(...string)) {
	if len(sel.devices) == 0 {
		add("--device", "none", "--gpu-layers", "0")
		return
	}
	// If a named device is missing, the server exits. Without names, it would
	// silently run on the CPU. The masks make the chosen devices the first ones.
	names := make([]string, len(sel.devices))
	for i := range names {
		names[i] = sel.backend.devicePrefix() + strconv.Itoa(i)
	}
	add("--device", strings.Join(names, ","))
	switch n := p.Request.Options.Layers; {
	case n == AllLayers:
		add("--gpu-layers", "all")
	case n > 0:
		add("--gpu-layers", strconv.Itoa(n))
	}
	margins := make([]string, len(p.Devices))
	for i, d := range p.Devices {
		margins[i] = strconv.FormatUint((d.Margin+d.Hidden+MiB-1)/MiB, 10)
	}
	add("--fit", "on", "--fit-target", strings.Join(margins, ","))
}

// environment sets the masks and switches of the backends. Every backend but the chosen
// one is hidden, so that its drivers are not initialised.
func (p *Plan) environment(sel selection) {
	switch sel.backend {
	case BackendVulkan:
		p.Env = append(p.Env, gpu.VulkanEnv(sel.devices)...)
		return
	case BackendHIP:
		p.Env = append(p.Env, gpu.VisibleEnv(sel.devices)...)
	default:
		p.Env = append(p.Env, gpu.EnvROCR+"=", gpu.EnvHIP+"=") // empty masks hide every device
	}
	if p.Request.Vulkan {
		p.Env = append(p.Env, gpu.NoVulkanEnv()...)
	}
	if sel.backend != BackendHIP {
		return
	}
	if sel.override != "" {
		p.Env = append(p.Env, gpu.EnvTargetOverride+"="+sel.override)
	}
	if !hasTarget(p.Request.HIPBLASLt, sel) {
		p.Env = append(p.Env, "ROCBLAS_USE_HIPBLASLT=0")
		p.Reasons = append(p.Reasons, fmt.Sprintf("hipBLASLt is off: the bundle has no kernels of it for %s", sel.target))
	}
}
