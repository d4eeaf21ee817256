package rocm

import (
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

func TestStallTimeout(t *testing.T) {
	for name, c := range map[string]struct {
		plan        plan.Plan
		asked, want time.Duration
	}{
		"on the GPU":        {plan.Plan{GPU: true, WholeLayers: 9, TotalLayers: 9}, 0, 0},
		"a part on the GPU": {plan.Plan{GPU: true, WholeLayers: 8, TotalLayers: 9}, 0, partialStallTimeout},
		"as asked":          {plan.Plan{GPU: true, WholeLayers: 8, TotalLayers: 9}, time.Second, time.Second},
		"never":             {plan.Plan{GPU: true, WholeLayers: 8, TotalLayers: 9}, -1, -1},
		"on the CPU":        {plan.Plan{TotalLayers: 9}, 0, 0}, // judged by its work
	} {
		if got := stallTimeout(&c.plan, c.asked); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
