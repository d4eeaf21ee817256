package plan

import (
	"errors"
	"fmt"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

const (
	// MiB is 2^20 bytes, the unit of llama.cpp's memory arguments.
	MiB = 1 << 20
	// DefaultMargin is left free on each GPU beside what graphics programs
	// hold; llama.cpp's own default for --fit-target.
	DefaultMargin = 1024 * MiB
	// AllLayers asks for every layer on the GPU.
	AllLayers = -1
	// AutoLayers lets --fit decide.
	AutoLayers = -2
	// minFitContext is the context below which --fit rather moves layers to
	// the host; llama.cpp's default for --fit-ctx.
	minFitContext = 4096
	// Bounds of options, above what any model or machine has use for.
	maxContext = 1 << 30
	maxBatch   = 1 << 20
)

// Conditions that errors of this package wrap.
var (
	// ErrNoGPU: RequireGPU was set and no device can be used.
	ErrNoGPU = errors.New("no usable GPU")
	// ErrDoesNotFit: the model does not fit even the host's memory.
	ErrDoesNotFit = errors.New("model does not fit")
	// ErrOption: an option is out of its range.
	ErrOption = errors.New("invalid option")
)

// Override says whether a device may run code of a close relative of its
// target, by HSA_OVERRIDE_GFX_VERSION.
type Override string

// The two words an Override may be, beside a version such as "11.0.0".
const (
	OverrideOff  Override = "off"  // never (the default)
	OverrideAuto Override = "auto" // when the bundle lacks the target but has a relative
)

// Options are a user's wishes. The zero value asks for nothing in particular
// on the CPU-or-GPU; use DefaultOptions for the usual ones.
type Options struct {
	Context      int      `json:"context"`       // tokens in all, 0: the model's own, reduced to fit
	Slots        int      `json:"slots"`         // parallel sequences, 0: llama-server chooses (4, sharing one context)
	Batch        int      `json:"batch"`         // tokens computed at once (-ub), 0: 512
	KVTypeK      string   `json:"kv_type_k"`     // cache type of keys, "": f16
	KVTypeV      string   `json:"kv_type_v"`     // cache type of values, "": f16
	Layers       int      `json:"layers"`        // AutoLayers, AllLayers, 0: CPU only, or a number
	Margin       uint64   `json:"margin"`        // bytes to leave free on each GPU, 0: DefaultMargin
	Projector    string   `json:"projector"`     // path of a multimodal projector
	Adapters     []string `json:"adapters"`      // paths of LoRA adapters
	Draft        string   `json:"draft"`         // path of a draft model
	GPUs         int      `json:"gpus"`          // how many equal cards to use together, 0: one
	Device       string   `json:"device"`        // PCI address or unique id of the card to use, "": choose
	RequireGPU   bool     `json:"require_gpu"`   // fail rather than fall back to the CPU
	Override     Override `json:"override"`      // HSA_OVERRIDE_GFX_VERSION policy
	CacheRAM     int      `json:"cache_ram"`     // MiB of host memory for saved prompts, 0: llama-server's default, -1: none
	FullSWA      bool     `json:"full_swa"`      // keep the whole context of sliding-window layers
	NoFlash      bool     `json:"no_flash"`      // no flash attention
	SplitContext bool     `json:"split_context"` // slots do not share the context
	Overcommit   bool     `json:"overcommit"`    // accept a model larger than the host's memory
}

// DefaultOptions lets --fit choose layers and context.
func DefaultOptions() Options { return Options{Layers: AutoLayers, Override: OverrideOff} }

// Request is what a plan is made from.
type Request struct {
	Model         *gguf.File
	ModelPath     string
	Projector     *gguf.File   // facts of Options.Projector; nil when there is none
	Adapters      []*gguf.File // facts of Options.Adapters
	Draft         *gguf.File   // facts of Options.Draft; nil when there is none
	Devices       []gpu.Device
	Environ       []string // the environment whose masks count, as os.Environ gives it
	BundleTargets []gfx.Target
	HIPBLASLt     []gfx.Target // targets that the bundle has hipBLASLt kernels for
	HostTotal     uint64       // bytes of memory of the host (or its limit), 0: unknown
	Barred        string       // why no GPU can be used whatever there is, "": one can
	Options       Options
}

// kvTypes lists what llama-server takes for --cache-type-k and -v.
func kvTypes() []string {
	return []string{"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"}
}

func kvType(name string) (gguf.TensorType, error) {
	switch name {
	case "", "f16":
		return gguf.F16, nil
	case "f32":
		return gguf.F32, nil
	case "bf16":
		return gguf.BF16, nil
	case "q8_0":
		return gguf.Q8_0, nil
	case "q4_0":
		return gguf.Q4_0, nil
	case "q4_1":
		return gguf.Q4_1, nil
	case "iq4_nl":
		return gguf.IQ4_NL, nil
	case "q5_0":
		return gguf.Q5_0, nil
	case "q5_1":
		return gguf.Q5_1, nil
	}
	return 0, fmt.Errorf("%w: cache type %q; use one of %v", ErrOption, name, kvTypes())
}

// Validate checks each option by itself.
func (o Options) Validate() error {
	if _, err := kvType(o.KVTypeK); err != nil {
		return err
	}
	v, err := kvType(o.KVTypeV)
	if err != nil {
		return err
	}
	switch {
	case o.Context < 0:
		return fmt.Errorf("%w: context %d is negative", ErrOption, o.Context)
	case o.Slots < 0 || o.Slots > 256:
		return fmt.Errorf("%w: %d slots, where 0 to 256 are possible", ErrOption, o.Slots)
	case o.Context > maxContext:
		return fmt.Errorf("%w: context %d, where %d is the most", ErrOption, o.Context, maxContext)
	case o.Batch < 0 || o.Batch > maxBatch:
		return fmt.Errorf("%w: batch %d, where 0 to %d are possible", ErrOption, o.Batch, maxBatch)
	case o.Layers < AutoLayers:
		return fmt.Errorf("%w: %d layers", ErrOption, o.Layers)
	case o.GPUs < 0:
		return fmt.Errorf("%w: %d GPUs", ErrOption, o.GPUs)
	case o.CacheRAM < -1:
		return fmt.Errorf("%w: cache of %d MiB", ErrOption, o.CacheRAM)
	case o.NoFlash && v.Quantised():
		return fmt.Errorf("%w: a quantised value cache (%s) needs flash attention", ErrOption, o.KVTypeV)
	}
	if o.Override != "" && !slices.Contains([]Override{OverrideOff, OverrideAuto}, o.Override) {
		if _, err := overrideTarget(string(o.Override)); err != nil {
			return err
		}
	}
	return nil
}
