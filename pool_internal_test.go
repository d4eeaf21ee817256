//go:build linux && amd64

package rocm

import (
	"maps"
	"math"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/host"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
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

// The prompt cache of a model that leaves it open is bounded, and a part of what it
// needs on the host; llama-server's own limit of 8 GiB is neither.
func TestPoolBoundsPromptCaches(t *testing.T) {
	const gib = 1 << 30
	for host, want := range map[uint64]int64{
		0: gib, 64 * gib: gib, 8 * gib: gib / 2, 16 * plan.MiB: plan.MiB, 50 * plan.MiB: 3 * plan.MiB, 15 * plan.MiB: -1,
	} {
		if got := poolCacheLimit(host); got != want {
			t.Errorf("of %d: %d, want %d", host, got, want)
		}
	}
	fake := fakebundle.New(t, fakellama.Script{})
	root := sysroot.Write(t, "none", map[string]string{"proc/meminfo": "MemTotal: 8388608 kB\n"})
	need := func(limit int64) (uint64, string) {
		var m PoolModel
		m.Path, m.Bundle, m.Context, m.Cache.HostLimit = fake.Model, fake.Dir, 1024, limit
		p, err := NewPool(PoolSettings{Models: map[string]PoolModel{"a": m}, SysRoot: root})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = p.Close() }()
		for _, m := range p.models {
			best, placements, _, err := p.placements(m)
			if err != nil || len(placements) != 1 {
				t.Fatal(placements, err)
			}
			return placements[0][len(placements[0])-1].Bytes, strings.Join(best.Args, " ")
		}
		return 0, ""
	}
	none, _ := need(-1)
	open, args := need(0)
	given, _ := need(100 * plan.MiB)
	if open-none != gib/2 || given-none != 100*plan.MiB || !strings.Contains(args, "--cache-ram 512") {
		t.Errorf("%d bytes without a cache, %d with the pool's, %d with 100 MiB; %s", none, open, given, args)
	}
}
