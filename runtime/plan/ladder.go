package plan

import (
	"fmt"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// maxSteps is the largest number of steps of a ladder.
const maxSteps = 5

// Step is one retry after loading failed for lack of memory.
type Step struct {
	Number  int     `json:"number"` // from 1
	Options Options `json:"options"`
	Reason  string  `json:"reason"` // what is changed, in a sentence
}

// Ladder returns what to try, step by step, when loading failed for lack of GPU
// memory: a larger margin, a quantised cache, half the context, fewer layers, and
// finally the CPU. It does not change a context or cache type that the user set.
// Plan each step with Make, since the free memory will have changed. Each call of
// Next returns the step after the plan that failed.
type Ladder struct {
	start Options
	done  []string // kinds of steps that were tried
	count int      // steps returned
}

// NewLadder starts from the options of the plan that failed first.
func NewLadder(o Options) *Ladder { return &Ladder{start: o} }

// Next returns the step after the failure of p; ok is false if no step is left.
func (l *Ladder) Next(p *Plan) (s Step, ok bool) {
	if p == nil || !p.GPU || l.count >= maxSteps {
		return Step{}, false
	}
	o := p.Request.Options
	for _, try := range []struct {
		kind string
		step func(Options, *Plan) (Options, string, bool)
	}{
		{"margin", l.margin}, {"cache", l.cache}, {"context", l.context}, {"layers", l.layers}, {"cpu", l.cpu},
	} {
		if slices.Contains(l.done, try.kind) {
			continue
		}
		l.done = append(l.done, try.kind)
		if next, why, ok := try.step(o, p); ok {
			l.count++
			return Step{Number: l.count, Options: next, Reason: why}, true
		}
	}
	return Step{}, false
}

// margin helps if --fit chooses the layers; a fixed number of layers ignores it.
func (l *Ladder) margin(o Options, _ *Plan) (Options, string, bool) {
	if o.Layers != AutoLayers {
		return o, "", false
	}
	if o.Devices.Margin == 0 {
		o.Devices.Margin = DefaultMargin
	}
	o.Devices.Margin += DefaultMargin
	return o, fmt.Sprintf("keeping %s free instead of %s", size(o.Devices.Margin), size(o.Devices.Margin-DefaultMargin)), true
}

func (l *Ladder) cache(o Options, p *Plan) (Options, string, bool) {
	if l.start.Cache.KeyType != "" || l.start.Cache.ValueType != "" || o.NoFlashAttention {
		return o, "", false
	}
	m, err := newModel(p.Request.Model)
	if err != nil || m.checkCacheTypes(load{keyType: gguf.Q8_0, valueType: gguf.Q8_0}) != nil {
		return o, "", false
	}
	o.Cache.KeyType, o.Cache.ValueType = "q8_0", "q8_0"
	return o, "keeping the cache in 8 bits (q8_0) instead of 16", true
}

func (l *Ladder) context(o Options, p *Plan) (Options, string, bool) {
	if l.start.Context > 0 || p.Context/2 < minFitContext {
		return o, "", false
	}
	o.Context = p.Context / 2 / cellPad * cellPad
	return o, fmt.Sprintf("a context of %d tokens instead of %d", o.Context, p.Context), true
}

func (l *Ladder) layers(o Options, p *Plan) (Options, string, bool) {
	n := p.Layers * 3 / 4
	if l.start.Layers > 0 || n < 1 {
		return o, "", false
	}
	o.Layers = n
	return o, fmt.Sprintf("%d layers on the GPU instead of %d", n, p.Layers), true
}

func (l *Ladder) cpu(o Options, _ *Plan) (Options, string, bool) {
	if l.start.Devices.Required || !l.start.auto() {
		return o, "", false
	}
	o.Layers = CPUOnly
	return o, "the CPU instead of the GPU", true
}
