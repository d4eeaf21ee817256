package plan

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

const (
	// MiB is 2^20 bytes, the unit of llama.cpp's memory arguments.
	MiB = 1 << 20
	// DefaultMargin is the memory that stays free on each GPU besides the memory
	// of graphics programs; llama.cpp's own default for --fit-target.
	DefaultMargin = 1024 * MiB
	// minFitContext is the context below which --fit moves layers to the host
	// instead; llama.cpp's default for --fit-ctx.
	minFitContext = 4096
	// Limits of options, above what any model or machine can use.
	maxContext = 1 << 30
	maxBatch   = 1 << 20
	maxLayers  = 1 << 16
	maxDevices = 256
)

// Special values of Options.Layers.
const (
	AutoLayers = 0  // as many as fit (the default)
	AllLayers  = -1 // every layer, whether it fits or not
	CPUOnly    = -2 // no layer, and no GPU driver is initialised
)

// Conditions that errors of this package wrap.
var (
	// ErrNoGPU reports that the options need a device, and that there is none, or not
	// enough of them.
	ErrNoGPU = errors.New("no usable GPU")
	// ErrDoesNotFit reports that the model does not even fit the host's memory.
	ErrDoesNotFit = errors.New("model does not fit")
	// ErrInvalidOption reports an option out of its range.
	ErrInvalidOption = errors.New("invalid option")
)

// Options are a user's choices about memory and devices. The zero value is the
// default of every field.
type Options struct {
	// Context is the number of tokens that all slots share. 0: the model's own
	// context, reduced until everything fits.
	Context int
	// Slots is the number of sequences that are decoded together. 0: llama-server's
	// default, 4 slots that share one context.
	Slots int
	// SplitContext divides the context between the slots.
	SplitContext bool
	// Batch is the number of tokens that are computed at once (--ubatch-size). 0: 512.
	Batch int
	// Backend is what computes: BackendAuto (the default), BackendHIP, BackendVulkan or
	// BackendCPU. A named backend for GPUs without a device is an error.
	Backend Backend
	// Layers is the number of layers on the GPU, or AutoLayers (the default),
	// AllLayers or CPUOnly.
	Layers int
	// Adapters are paths of LoRA adapters (GGUF).
	Adapters []string
	// Projector is the path of the model's multimodal projector (mmproj, GGUF), for
	// images or audio.
	Projector string
	// Draft is the path of a draft model for speculative decoding (GGUF).
	Draft string
	// Cache configures the KV cache.
	Cache Cache
	// Devices selects the GPUs.
	Devices Devices
	// NoFlashAttention disables flash attention.
	NoFlashAttention bool
	// Overcommit accepts a model larger than the host's memory.
	Overcommit bool
}

// Cache configures the KV cache. The zero value is the default of every field.
type Cache struct {
	// KeyType and ValueType are the types of keys and values, such as "q8_0";
	// empty: f16.
	KeyType, ValueType string
	// FullSWA keeps the whole context of layers with a sliding window.
	FullSWA bool
	// HostLimit is the main memory, in bytes, in which the server keeps the state of
	// earlier prompts, rounded up to MiB. 0: llama-server's default (8 GiB);
	// negative: none.
	HostLimit int64
}

// Devices selects GPUs. The zero value selects the best one, or the CPU if no GPU
// can be used.
type Devices struct {
	// ID is the [gpu.Device.ID] (the PCI address, if there is one) or the unique id of the
	// GPU to use; empty: the best one. If no device has it, planning fails; if the
	// device cannot be used, the model runs on the CPU unless Required is set.
	ID string
	// Count is the number of GPUs with the same target to use together. 0: one. If
	// it is 2 or more and there are fewer, planning fails.
	Count int
	// Required makes planning fail if no GPU can be used.
	Required bool
	// Margin is the memory in bytes that stays free on each GPU. 0: DefaultMargin.
	Margin uint64
	// Override is the policy for HSA_OVERRIDE_GFX_VERSION; empty: OverrideOff.
	Override Override
}

// Override is the policy for running the code of a related target, by
// HSA_OVERRIDE_GFX_VERSION: OverrideOff, OverrideAuto, or a version such as
// "11.0.0".
type Override string

// The values of an Override that are not versions.
const (
	OverrideOff  Override = "off"  // never (the default)
	OverrideAuto Override = "auto" // if the bundle has a related target but not the device's own
)

// Request is the input of a plan.
type Request struct {
	Model         *gguf.File
	ModelPath     string
	Projector     *gguf.File   // header of Options.Projector; nil without one
	Adapters      []*gguf.File // headers of Options.Adapters
	Draft         *gguf.File   // header of Options.Draft; nil without one
	Devices       []gpu.Device
	Environ       []string // the environment whose masks apply, as os.Environ returns it
	BundleTargets []gfx.Target
	HIPBLASLt     []gfx.Target // targets for which the bundle has hipBLASLt kernels
	Vulkan        bool         // the bundle has the Vulkan module; Devices then have what Vulkan reports, see NeedsVulkan
	HostTotal     uint64       // bytes of memory of the host (or its limit), 0: unknown
	NoGPU         string       // why HIP can use no GPU, whatever Devices contains; empty: it can
	// Verdicts are what is known of the model on the devices, by [gpu.Device.ID].
	Verdicts map[string]Verdict
	Options  Options
}

// kvTypes lists the values that llama-server accepts for --cache-type-k and -v.
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
	return 0, fmt.Errorf("cache type %q; use one of %s", name, strings.Join(kvTypes(), ", "))
}

// OptionError is an error about one option.
type OptionError struct {
	// Option is the field of [Options], or of a struct that embeds it, such as
	// "Context" or "Cache.KeyType"; "Model" for the model itself.
	Option string
	// Err is what is wrong, with the remedy.
	Err error
}

// Error returns the text of Err, which names the option in words.
func (e *OptionError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *OptionError) Unwrap() error { return e.Err }

// InvalidOption returns an [OptionError] that wraps [ErrInvalidOption].
func InvalidOption(option, format string, args ...any) error {
	return &OptionError{option, fmt.Errorf("%w: %w", ErrInvalidOption, fmt.Errorf(format, args...))}
}

// Validate checks each option by itself. Its error joins an [OptionError], which
// wraps [ErrInvalidOption], for each that is out of its range.
func (o Options) Validate() error {
	var errs []error
	invalid := func(option, format string, args ...any) {
		errs = append(errs, InvalidOption(option, format, args...))
	}
	if _, err := kvType(o.Cache.KeyType); err != nil {
		invalid("Cache.KeyType", "%w", err)
	}
	v, err := kvType(o.Cache.ValueType)
	switch {
	case err != nil:
		invalid("Cache.ValueType", "%w", err)
	case o.NoFlashAttention && v.Quantised():
		invalid("Cache.ValueType", "a quantised value cache (%s) needs flash attention", o.Cache.ValueType)
	}
	switch {
	case o.Context < 0:
		invalid("Context", "a context of %d tokens; use 0 for the model's own", o.Context)
	case o.Context > maxContext:
		invalid("Context", "a context of %d tokens; the largest is %d", o.Context, maxContext)
	}
	if o.Slots < 0 || o.Slots > 256 {
		invalid("Slots", "%d slots; use 1 to 256, or 0 for the default", o.Slots)
	}
	if o.Batch < 0 || o.Batch > maxBatch {
		invalid("Batch", "a batch of %d tokens; use 1 to %d, or 0 for the default", o.Batch, maxBatch)
	}
	if o.Layers < CPUOnly || o.Layers > maxLayers {
		invalid("Layers", "%d GPU layers; use at most %d, or the default for as many as fit", o.Layers, maxLayers)
	}
	o.validateBackend(invalid)
	if o.Devices.Count < 0 || o.Devices.Count > maxDevices {
		invalid("Devices.Count", "%d GPUs; use 1 to %d, or 0 for one", o.Devices.Count, maxDevices)
	}
	if o.Cache.HostLimit > math.MaxInt32*MiB {
		invalid("Cache.HostLimit", "a host cache of %d MiB; the largest is %d MiB", o.Cache.HostLimit/MiB, math.MaxInt32)
	}
	if ov := o.Devices.Override; ov != "" && ov != OverrideOff && ov != OverrideAuto {
		if _, err := overrideTarget(string(ov)); err != nil {
			invalid("Devices.Override", "%w", err)
		}
	}
	return errors.Join(errs...)
}

// validateBackend reports a backend that does not exist or contradicts other options.
func (o Options) validateBackend(invalid func(option, format string, args ...any)) {
	onGPU := o.Layers > 0 || o.Layers == AllLayers
	switch o.Backend {
	case "", BackendAuto:
	case BackendHIP, BackendVulkan:
		if o.Layers == CPUOnly {
			invalid("Backend", "the backend %s with no layer on the GPU; use the backend cpu, or another number of layers", string(o.Backend))
		}
	case BackendCPU:
		if onGPU || o.Devices.Required {
			invalid("Backend", "the backend cpu, and a GPU is required; use another backend, or do not require a GPU or layers on it")
		}
	default:
		invalid("Backend", "the backend %q; use auto, hip, vulkan or cpu", string(o.Backend))
	}
}
