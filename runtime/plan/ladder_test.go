package plan_test

import (
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// TestLadder takes every step from a plan that is expected to fit to the CPU.
func TestLadder(t *testing.T) {
	r := request(t, "qwen3-8b-Q4_K_M", xtx(0))
	p := make1(t, r)
	l := plan.NewLadder(r.Options)
	var said []string
	for {
		s, ok := l.Next(p)
		if !ok {
			break
		}
		if s.Number != len(said)+1 || s.Reason == "" {
			t.Fatalf("step %+v", s)
		}
		said = append(said, s.Reason)
		r.Options = s.Options
		next := make1(t, r)
		if next.GPU && next.Devices[0].Used() > p.Devices[0].Used() && !strings.Contains(s.Reason, "8 bits") {
			// An 8-bit cache leaves memory for a longer context; other steps enlarge nothing.
			t.Errorf("%q needs more than before", s.Reason)
		}
		p = next
	}
	want := []string{"free instead of 1.0 GiB", "8 bits", "tokens instead of", "27 layers on the GPU instead of 37", "the CPU instead"}
	if len(said) != len(want) {
		t.Fatalf("steps %q", said)
	}
	for i, w := range want {
		if !strings.Contains(said[i], w) {
			t.Errorf("step %d: %q, want %q", i+1, said[i], w)
		}
	}
	if p.GPU {
		t.Error("the last step is still on the GPU")
	}
}

// TestLadderKeepsSetOptions checks that no step changes an option that the user set.
func TestLadderKeepsSetOptions(t *testing.T) {
	r := request(t, "qwen3-8b-Q4_K_M", xtx(0))
	r.Options.Context, r.Options.Cache.KeyType, r.Options.Layers, r.Options.Devices.Required = 8192, "f16", 20, true
	p := make1(t, r)
	l := plan.NewLadder(r.Options)
	if s, ok := l.Next(p); ok {
		t.Errorf("step %+v although everything was set", s)
	}
	cpu := request(t, "qwen3-8b-Q4_K_M")
	if s, ok := plan.NewLadder(cpu.Options).Next(make1(t, cpu)); ok {
		t.Errorf("step %+v from the CPU", s)
	}
}
