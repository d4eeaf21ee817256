//go:build linux && amd64

package rocm

import (
	"maps"
	"math"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/host"
	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
)

func TestHostPlace(t *testing.T) {
	const gib = 1 << 30
	for name, tc := range map[string]struct {
		memory host.Memory
		limit  uint64
		want   scheduler.Place
	}{
		"the machine's":       {host.Memory{Total: 64 * gib, Available: 40 * gib}, 0, scheduler.Place{Total: 64 * gib, Free: 40 * gib, Margin: gib}},
		"a control group":     {host.Memory{Total: 64 * gib, Available: 40 * gib, Limit: 8 * gib}, 0, scheduler.Place{Total: 8 * gib, Free: 8 * gib, Margin: gib / 2}},
		"the settings' limit": {host.Memory{Total: 64 * gib, Available: 2 * gib}, 4 * gib, scheduler.Place{Total: 4 * gib, Free: 2 * gib, Margin: gib / 4}},
		"a limit too high":    {host.Memory{Total: 4 * gib}, 8 * gib, scheduler.Place{Total: 4 * gib, Free: 4 * gib, Margin: gib / 4}},
		"unknown":             {host.Memory{}, 0, scheduler.Place{Total: math.MaxUint64, Free: math.MaxUint64, Margin: gib}},
	} {
		tc.want.ID, tc.want.Mapped = scheduler.Host, true
		if got := hostPlace(tc.memory, tc.limit); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

func TestGrowth(t *testing.T) {
	got := growth(map[string]uint64{"a": 5, "b": 5, "gone": 1}, map[string]uint64{"a": 7, "b": 5, "new": 3})
	if !maps.Equal(got, map[string]uint64{"a": 2}) {
		t.Error(got)
	}
}
