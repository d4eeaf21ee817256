package pull

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/hub"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// defaultQuantisations are tried in this order where no plan decides. They have about
// 4.5 bits for a weight, with which most models still answer well.
var defaultQuantisations = []string{"Q4_K_M", "UD-Q4_K_XL", "Q4_K_S", "IQ4_XS", "MXFP4", "Q4_0"}

// choose returns one of the variants, which are sorted by size:
//
//  1. the only one;
//  2. with a machine that has a GPU, the largest quantisation with which the whole
//     model fits on the GPU;
//  3. the first of defaultQuantisations that there is, and else the smallest.
//
// Files with 16 and more bits for a weight are chosen only where there are no others:
// they answer hardly better than Q8_0, and at half the speed.
func (p *Puller) choose(ctx context.Context, repo *hub.Repo, variants []hub.Variant) (v hub.Variant, why string, err error) {
	if len(variants) == 1 {
		return variants[0], "", nil
	}
	candidates := slices.DeleteFunc(slices.Clone(variants), func(v hub.Variant) bool { return !v.Quantised() })
	if len(candidates) == 0 {
		candidates = variants
	}
	vram := p.vram()
	for _, v := range candidates {
		if uint64(v.Bytes()) > vram { //nolint:gosec // sizes are positive
			continue
		}
		made, err := p.Plan(ctx, p.found(modelref.Ref{Scheme: modelref.Hub, Owner: repo.Owner, Repo: repo.Name}, repo, v, ""))
		if err != nil && !errors.Is(err, plan.ErrDoesNotFit) {
			return hub.Variant{}, "", err
		}
		if err == nil && made.Fits {
			return v, fmt.Sprintf("the largest of %d quantisations that fits on the GPU with a context of %d tokens: it needs %.1f GiB", len(candidates), made.Context, float64(made.Needs)/(1<<30)), nil
		}
	}
	reason := "there is no GPU"
	if vram > 0 {
		reason = "none fits on the GPU as a whole"
	}
	for _, quant := range defaultQuantisations {
		for _, v := range candidates {
			if v.Quant == quant {
				return v, "the usual quantisation: " + reason, nil
			}
		}
	}
	return candidates[len(candidates)-1], "the smallest quantisation: " + reason, nil
}

// vram returns the memory of all GPUs in bytes.
func (p *Puller) vram() (sum uint64) {
	if p.Machine == nil {
		return 0
	}
	for _, d := range p.Machine.Devices {
		sum += d.VRAMTotal
		if d.Integrated {
			sum += d.GTTTotal
		}
	}
	return sum
}
