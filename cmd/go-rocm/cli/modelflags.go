package cli

import (
	"math"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// modelFlags are the flags of the commands that load a model.
type modelFlags struct {
	bundle, template, override, device string
	projector, draft                   string
	adapters, serverArgs               []string
	context, slots, layers, gpus       int
	cacheTypeK, cacheTypeV             string
	cacheRAM                           int
	requireGPU, overcommit             bool
	startTimeout, stallTimeout         time.Duration
}

func (f *modelFlags) register(fs *pflag.FlagSet) {
	f.registerPlan(fs)
	fs.StringVar(&f.template, "chat-template-file", "", "use the chat template in this file instead of the model's")
	fs.StringArrayVar(&f.serverArgs, "server-arg", nil, "pass this argument to llama-server (repeatable)")
	fs.DurationVar(&f.startTimeout, "start-timeout", 0, "stop loading after this time without progress (0: by the model's size)")
	fs.DurationVar(&f.stallTimeout, "stall-timeout", 0, "restart llama-server when requests get no token for this time and, on the CPU, it does no work (0: 2m, or 10m if the model is only partly on the GPU; negative: never)")
}

// registerPlan registers the flags that determine memory and devices.
func (f *modelFlags) registerPlan(fs *pflag.FlagSet) {
	fs.StringVar(&f.bundle, "bundle", "", "run llama-server from this bundle, a directory or a packed file (default: $GOROCM_BUNDLE, else the installed bundle, else the embedded one)")
	fs.IntVarP(&f.context, "context", "c", 0, "context size in tokens, shared by the slots (0: the model's own, reduced to fit)")
	fs.IntVar(&f.slots, "slots", 0, "number of requests processed in parallel (0: 4)")
	fs.IntVar(&f.layers, "gpu-layers", -2, "number of layers on the GPU (-2: as many as fit, -1: all, 0: none)")
	fs.IntVar(&f.gpus, "gpus", 0, "number of identical GPUs to split the model over (0: one)")
	fs.StringVar(&f.device, "device", "", "GPU to use, by PCI address or GPU- id")
	fs.BoolVar(&f.requireGPU, "require-gpu", false, "fail instead of running on the CPU")
	fs.BoolVar(&f.overcommit, "overcommit", false, "accept a model larger than main memory; it is read from disk repeatedly")
	fs.StringVar(&f.override, "override", string(plan.OverrideOff), "run code built for a related GPU target: off, auto, or a version such as 11.0.0")
	fs.StringArrayVar(&f.adapters, "adapter", nil, "apply this LoRA adapter, a GGUF file (repeatable)")
	fs.StringVar(&f.projector, "mmproj", "", "multimodal projector for images or audio, a GGUF file made for the model")
	fs.StringVar(&f.draft, "draft", "", "draft model for speculative decoding, a GGUF file")
	fs.StringVar(&f.cacheTypeK, "cache-type-k", "", "data type of the K cache, such as q8_0 (default f16)")
	fs.StringVar(&f.cacheTypeV, "cache-type-v", "", "data type of the V cache (default f16)")
	fs.IntVar(&f.cacheRAM, "cache-ram", 0, "main memory for cached prompts, in MiB (0: 8192, -1: none)")
}

func (f *modelFlags) options() plan.Options {
	layers := f.layers
	switch layers { // the flag's 0 is no layer; the option's is the default
	case 0:
		layers = plan.CPUOnly
	case -2:
		layers = plan.AutoLayers
	}
	return plan.Options{
		Context: f.context, Slots: f.slots, Layers: layers,
		Devices:  plan.Devices{ID: f.device, Count: f.gpus, Required: f.requireGPU, Override: plan.Override(f.override)},
		Adapters: f.adapters, Projector: f.projector, Draft: f.draft, Overcommit: f.overcommit,
		Cache: plan.Cache{KeyType: f.cacheTypeK, ValueType: f.cacheTypeV, HostLimit: min(int64(f.cacheRAM), math.MaxInt64/plan.MiB) * plan.MiB},
	}
}

func (f *modelFlags) settings(cmd *cobra.Command) rocm.Settings {
	return rocm.Settings{
		Options: f.options(), Bundle: f.bundle, ChatTemplateFile: f.template, Args: f.serverArgs, Log: logger(cmd),
		Timeouts: rocm.Timeouts{Start: f.startTimeout, Stall: f.stallTimeout},
		Restart:  rocm.Restart{Disabled: true},
	}
}
