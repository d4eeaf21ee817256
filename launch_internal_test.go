package rocm

import (
	"path/filepath"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
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
		"on the CPU":        {plan.Plan{TotalLayers: 9}, 0, 0}, // see CPUOnly
	} {
		if got := stallTimeout(&c.plan, c.asked); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// CPU time counts as progress where the CPU computes everything. The timeouts are those
// of the settings.
func TestSpecFollowsPlanAndSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.gguf")
	b := ggufgen.New("llama")
	b.Uint("llama.block_count", 1)
	if err := b.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	header, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = header.Close() }()
	for name, p := range map[string]plan.Plan{"on the CPU": {}, "on the GPU": {GPU: true}} {
		l := &Prepared{
			Header: header, size: header.Size(),
			settings: Settings{Timeouts: Timeouts{Start: 1, Stall: 2, Drain: 3, Stop: 4}, Restart: Restart{MaxFailures: 5}},
			srv:      &Server{Path: path, Plan: &p, program: &locate.Program{Dir: "dir", Argv: []string{"llama-server"}}},
		}
		s := l.spec()
		if s.CPUOnly == p.GPU || s.ModelBytes != header.Size() || s.Dir != "dir" || s.Restart.MaxFailures != 5 || s.Restart.BeforeRestart != nil {
			t.Errorf("%s: %+v", name, s)
		}
		if s.StartTimeout != 1 || s.StallTimeout != 2 || s.DrainTimeout != 3 || s.StopTimeout != 4 {
			t.Errorf("%s: timeouts of %v, %v, %v and %v", name, s.StartTimeout, s.StallTimeout, s.DrainTimeout, s.StopTimeout)
		}
	}
}
