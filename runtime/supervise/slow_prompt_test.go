//go:build linux

package supervise

import (
	"context"
	"errors"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// A prompt that takes longer than a stall: on the CPU, a server that computes is
// not stalled, and one that only waits is. With a GPU the CPU's time tells
// nothing.
func TestSlowPrompt(t *testing.T) {
	const stall, prompt = 4 * time.Second, 12 * time.Second
	for name, c := range map[string]struct {
		onCPU, busy bool
		want        error
	}{
		"computing on the CPU":     {true, true, nil},
		"waiting on the CPU":       {true, false, ErrStalled},
		"computing beside the GPU": {false, true, ErrStalled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := fake(t, roleServer, fakellama.Script{Reply: "done", PromptDelay: prompt, PromptBusy: c.busy})
			spec.CPUOnly, spec.StallTimeout, spec.StallGrace = c.onCPU, stall, 100*time.Millisecond
			child := mustStart(t, spec)
			events, done := child.Subscribe()
			defer done()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // bounds a failure
			defer cancel()
			if _, err := readAll(ctx, child); !errors.Is(err, c.want) || (c.want == nil && err != nil) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if c.want != nil {
				return
			}
			select {
			case e := <-events:
				t.Errorf("%s because of %v: %s", e.To, e.Cause, e.Note)
			default:
			}
		})
	}
}
