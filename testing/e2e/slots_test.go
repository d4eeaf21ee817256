//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
)

// TestSlotOutlivesItsServer saves the state of a slot and restores it in another process,
// which has to compute only the last tokens of the prompt.
func TestSlotOutlivesItsServer(t *testing.T) {
	settings := rocm.Settings{}
	settings.SlotDir = t.TempDir()
	settings.Context, settings.Slots = 1024, 2
	path := tiny(t, "llama-spm", 6)
	start := func() *rocm.Model {
		m, err := (&rocm.Backend{}).Load(t.Context(), path, settings)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
		return m
	}
	reuse := true
	says := func(m *rocm.Model, slot int) (string, llamaapi.Final) {
		s := m.Stream(t.Context(), rocm.Request{
			Prompt: rocm.TextPrompt(strings.Repeat("A long tale. ", 20)), Slot: &slot, ReuseCache: &reuse, GenerateConfig: inference.GenerateConfig{MaxTokens: 4},
		})
		var text strings.Builder
		for tok := range s.All() {
			text.WriteString(tok.Text)
		}
		if s.Err() != nil {
			t.Fatal(s.Err())
		}
		if f := s.Final(); f.Slot != slot {
			t.Errorf("ran in slot %d, want %d", f.Slot, slot)
		}
		return text.String(), s.Final()
	}
	first := start()
	text, f := says(first, 1)
	if f.Timings.CachedTokens != 0 || f.PromptTokens < 60 {
		t.Fatalf("at first: %+v", f)
	}
	saved, err := first.SaveSlot(t.Context(), 1, "tale.bin")
	if err != nil || saved.Slot != 1 || saved.Tokens < f.PromptTokens {
		t.Fatalf("saved %+v, %v; the prompt has %d tokens", saved, err, f.PromptTokens)
	}
	if info, err := os.Stat(filepath.Join(settings.SlotDir, "tale.bin")); err != nil || info.Size() != saved.Bytes {
		t.Errorf("the file: %v, %v; want %d bytes", info, err, saved.Bytes)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := start()
	restored, err := second.RestoreSlot(t.Context(), 0, "tale.bin")
	if err != nil || restored.Slot != 0 || restored.Tokens != saved.Tokens || restored.Bytes != saved.Bytes {
		t.Fatalf("restored %+v, %v; saved %+v", restored, err, saved)
	}
	again, f := says(second, 0)
	if f.Timings.CachedTokens < f.PromptTokens-1 || f.Timings.CachedTokens+f.Timings.PromptTokens != f.PromptTokens || again != text {
		t.Errorf("after restoring: %q, %+v; want %q and the prompt cached", again, f, text)
	}
	if x := second.Metrics(); x.PromptTokens != f.PromptTokens {
		t.Errorf("%d prompt tokens in the metrics, with those cached %d", x.PromptTokens, f.PromptTokens)
	}
}

// TestContextAndSlotsOfTheServer checks the real server's use of the options: the slots
// share ContextLen, so that a single slot may use all of it.
func TestContextAndSlotsOfTheServer(t *testing.T) {
	for _, tc := range []struct{ context, slots int }{{512, 1}, {1024, 2}, {1536, 3}} {
		m := load(t, tiny(t, "llama-spm", 8), inference.WithContextLen(tc.context), inference.WithParallelSlots(tc.slots))
		props, err := m.API().Props(t.Context())
		if err != nil || props.Defaults.ContextLen != tc.context || props.TotalSlots != tc.slots || m.Slots() != tc.slots {
			t.Errorf("%+v: %v, props say %+v, the model %d slots", tc, err, props, m.Slots())
		}
		slots, err := m.API().Slots(t.Context())
		if err != nil || len(slots) != tc.slots {
			t.Fatalf("%+v: %d slots, %v", tc, len(slots), err)
		}
		for _, s := range slots {
			if s.ContextLen != tc.context {
				t.Errorf("%+v: slot %d has %d tokens", tc, s.ID, s.ContextLen)
			}
		}
	}
}
