package rocm

import (
	"errors"
	"math"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

func TestCacheLimit(t *testing.T) {
	for name, c := range map[string]struct {
		limit int64
		plan  *plan.Options
		want  int
		err   error
	}{
		"default":       {0, nil, 0, nil},
		"none":          {-1, nil, -1, nil},
		"rounded up":    {1, nil, 1, nil},
		"a gibibyte":    {1 << 30, nil, 1024, nil},
		"from the plan": {0, &plan.Options{CacheRAM: 7}, 7, nil},
		"over the plan": {2 << 20, &plan.Options{CacheRAM: 7}, 2, nil},
		"too large":     {math.MaxInt64, nil, 0, ErrOption},
	} {
		s := DefaultSettings()
		s.CacheLimit, s.Plan = c.limit, c.plan
		if o, err := s.planOptions(); !errors.Is(err, c.err) || (err == nil && o.CacheRAM != c.want) {
			t.Errorf("%s: %d MiB, %v; want %d, %v", name, o.CacheRAM, err, c.want, c.err)
		}
	}
}
