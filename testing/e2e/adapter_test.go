//go:build e2e

package e2e

import (
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// TestAdapterChangesTheText loads a generated LoRA adapter and compares the text at
// its scale, at scale 0, and at the scale of a single request.
func TestAdapterChangesTheText(t *testing.T) {
	b, err := ggufgen.Adapter(ggufgen.TinyOptions{}, ggufgen.AdapterOptions{Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	adapter := filepath.Join(t.TempDir(), "adapter.gguf")
	if err := b.WriteFile(adapter); err != nil {
		t.Fatal(err)
	}
	path := tiny(t, "llama-spm", 5)
	says := func(m *rocm.Model, scales ...llamaapi.LoRAScale) string {
		t.Helper()
		s := m.Stream(t.Context(), rocm.Request{
			Prompt: rocm.TextPrompt("Once upon a time"), Adapters: scales, GenerateConfig: inference.GenerateConfig{MaxTokens: 16},
		})
		var text string
		for tok := range s.All() {
			text += tok.Text
		}
		if s.Err() != nil || text == "" {
			t.Fatalf("%q, %v", text, s.Err())
		}
		return text
	}
	without := says(load(t, path))

	m := load(t, path, inference.WithAdapterPath(adapter))
	with := says(m)
	if with == without {
		t.Fatalf("with and without the adapter: %q", with)
	}
	on, off := llamaapi.LoRAScale{ID: 0, Scale: 1}, llamaapi.LoRAScale{ID: 0, Scale: 0}
	if got := says(m, off); got != without {
		t.Errorf("a request without it: %q, want %q", got, without)
	}
	for _, tc := range []struct {
		set     llamaapi.LoRAScale
		want    string
		request llamaapi.LoRAScale
		other   string
	}{{off, without, on, with}, {on, with, off, without}} {
		if err := m.SetAdapters(t.Context(), []llamaapi.LoRAScale{tc.set}); err != nil {
			t.Fatal(err)
		}
		have, err := m.Adapters(t.Context())
		if err != nil || len(have) != 1 || have[0] != (llamaapi.LoRA{ID: 0, Path: adapter, Scale: tc.set.Scale}) {
			t.Errorf("adapters %+v, %v", have, err)
		}
		if got := says(m); got != tc.want {
			t.Errorf("at scale %v: %q, want %q", tc.set.Scale, got, tc.want)
		}
		if got := says(m, tc.request); got != tc.other {
			t.Errorf("a request at scale %v of an adapter at %v: %q, want %q", tc.request.Scale, tc.set.Scale, got, tc.other)
		}
		if got := says(m); got != tc.want {
			t.Errorf("after that request, at scale %v: %q, want %q", tc.set.Scale, got, tc.want)
		}
	}
}
