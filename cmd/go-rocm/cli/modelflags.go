package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

func isTTY(fd int) bool { return term.IsTerminal(fd) }

// modelFlags are the flags of every command that loads a model.
type modelFlags struct {
	bundle, template, override, device string
	projector, draft                   string
	adapters, extra                    []string
	context, slots, layers, gpus       int
	kvK, kvV                           string
	cacheRAM                           int
	requireGPU, overcommit             bool
	startTimeout, stallTimeout         time.Duration
}

func (f *modelFlags) register(fs *pflag.FlagSet) {
	f.registerPlan(fs)
	fs.StringVar(&f.template, "chat-template-file", "", "use this chat template instead of the model's")
	fs.StringArrayVar(&f.extra, "server-arg", nil, "pass this argument to llama-server (repeat it)")
	fs.DurationVar(&f.startTimeout, "start-timeout", 0, "how long loading may take without progress (0: by the model's size)")
	fs.DurationVar(&f.stallTimeout, "stall-timeout", 0, "how long requests may run without a token, and on the CPU without work (0: 2m, or 10m where the GPU has only a part of the model; negative: for ever)")
}

// registerPlan registers what decides memory and devices.
func (f *modelFlags) registerPlan(fs *pflag.FlagSet) {
	fs.StringVar(&f.bundle, "bundle", "", "run llama-server from this bundle, a folder or a packed file (default: $GOROCM_BUNDLE, the installed one, the built-in one)")
	fs.IntVarP(&f.context, "context", "c", 0, "context in tokens, shared by the slots (0: the model's own, reduced to fit)")
	fs.IntVar(&f.slots, "slots", 0, "requests that are answered side by side (0: 4)")
	fs.IntVar(&f.layers, "gpu-layers", plan.AutoLayers, "layers on the GPU: -2 what fits, -1 all, 0 none")
	fs.IntVar(&f.gpus, "gpus", 0, "equal cards to use together (0: one)")
	fs.StringVar(&f.device, "device", "", "the card to use, by PCI address or GPU- id")
	fs.BoolVar(&f.requireGPU, "require-gpu", false, "fail rather than run on the CPU")
	fs.BoolVar(&f.overcommit, "overcommit", false, "accept a model larger than the main memory; it is read from disk again and again")
	fs.StringVar(&f.override, "override", string(plan.OverrideOff), "run code for a related GPU target: off, auto, or a version such as 11.0.0")
	fs.StringArrayVar(&f.adapters, "adapter", nil, "apply this LoRA adapter, a GGUF file (repeat it)")
	fs.StringVar(&f.projector, "mmproj", "", "read images or sound with this projector of the model's, a GGUF file")
	fs.StringVar(&f.draft, "draft", "", "guess ahead with this small model, a GGUF file")
	fs.StringVar(&f.kvK, "cache-type-k", "", "type of the cache of keys, such as q8_0 (default f16)")
	fs.IntVar(&f.cacheRAM, "cache-ram", 0, "MiB of main memory to keep the state of earlier prompts in (0: 8192, -1: none)")
	fs.StringVar(&f.kvV, "cache-type-v", "", "type of the cache of values (default f16)")
}

func (f *modelFlags) options() plan.Options {
	o := plan.DefaultOptions()
	o.Context, o.Slots, o.Layers, o.GPUs = f.context, f.slots, f.layers, f.gpus
	o.Device, o.RequireGPU, o.Override = f.device, f.requireGPU, plan.Override(f.override)
	o.Adapters, o.Projector, o.Draft = f.adapters, f.projector, f.draft
	o.KVTypeK, o.KVTypeV, o.CacheRAM = f.kvK, f.kvV, f.cacheRAM
	o.Overcommit = f.overcommit
	return o
}

func (f *modelFlags) settings(cmd *cobra.Command) rocm.Settings {
	s := rocm.DefaultSettings()
	o := f.options()
	s.Plan, s.Bundle, s.ChatTemplateFile, s.Args = &o, f.bundle, f.template, f.extra
	s.StartTimeout, s.StallTimeout = f.startTimeout, f.stallTimeout
	s.Log = logger(cmd)
	return s
}

// progressLine draws one line that is drawn over, on a terminal only.
type progressLine struct {
	w    io.Writer
	wide bool
}

func newProgressLine(cmd *cobra.Command) *progressLine {
	w := cmd.ErrOrStderr()
	verbose, err := cmd.Flags().GetBool("verbose")
	return &progressLine{w: w, wide: isTerminal(w) && err == nil && !verbose}
}

func (p *progressLine) show(format string, args ...any) {
	if p.wide {
		_, _ = fmt.Fprintf(p.w, "\r\x1b[K"+format, args...)
	}
}

func (p *progressLine) clear() { p.show("") }

// attach lets the line tell what settings do.
func (p *progressLine) attach(s *rocm.Settings) {
	s.Unpacking = func(done, total int64) {
		p.show("unpacking llama-server: %d %%", 100*done/max(total, 1))
	}
	s.Loading = func(e supervise.Event) {
		switch e.To {
		case supervise.Starting:
			p.show("starting llama-server")
		case supervise.Loading:
			p.show("loading the model: %.0f %%", 100*e.Progress)
		default:
			p.clear()
		}
	}
}

// readInput reads a prompt that was piped in, bounded.
func readInput(r io.Reader) (string, error) {
	const most = 16 << 20
	raw, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return "", fmt.Errorf("read the prompt: %w", err)
	}
	if len(raw) > most {
		return "", errors.New("the prompt is larger than 16 MiB")
	}
	return string(raw), nil
}

// fromPipe reports whether r is something that was piped in.
func fromPipe(r io.Reader) bool {
	f, ok := r.(*os.File)
	return !ok || !isTerminal(f)
}
