//go:build linux && amd64

package rocm_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// loadWith loads the fake model with settings.
func loadWith(t *testing.T, s rocm.Settings) *rocm.Model {
	t.Helper()
	m, err := (&rocm.Backend{}).Load(t.Context(), fakebundle.Use(t, fakellama.Script{}), s)
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

// TestSlotIsKept saves a slot, empties it and takes it back.
func TestSlotIsKept(t *testing.T) {
	s := rocm.Settings{}
	s.SlotDir, s.Slots = t.TempDir(), 2
	m := loadWith(t, s)
	if argv := m.Server().Child.Diagnose().Argv; !slices.Contains(argv, s.SlotDir) || argv[slices.Index(argv, s.SlotDir)-1] != "--slot-save-path" {
		t.Errorf("no directory for slots in %q", argv)
	}
	stream := m.Stream(t.Context(), rocm.Request{Prompt: rocm.TextPrompt("a prompt of some length"), GenerateConfig: inference.GenerateConfig{MaxTokens: 1}})
	if toks := collect(stream.All()); len(toks) != 1 || stream.Err() != nil {
		t.Fatal(toks, stream.Err())
	}
	slot, prompt := stream.Final().Slot, stream.Final().PromptTokens
	saved, err := m.SaveSlot(t.Context(), slot, "kept.bin")
	if err != nil || saved.Slot != slot || saved.Name != "kept.bin" || saved.Tokens != prompt {
		t.Fatalf("saved %+v, %v; the prompt has %d tokens", saved, err, prompt)
	}
	if n, err := m.API().EraseSlot(t.Context(), slot); err != nil || n != prompt {
		t.Fatalf("erased %d, %v", n, err)
	}
	restored, err := m.RestoreSlot(t.Context(), slot, "kept.bin")
	if err != nil || restored.Slot != slot || restored.Name != "kept.bin" || restored.Tokens != prompt {
		t.Errorf("restored %+v, %v; the prompt has %d tokens", restored, err, prompt)
	}
	if n, err := m.API().EraseSlot(t.Context(), slot); err != nil || n != prompt {
		t.Errorf("the slot held %d tokens behind it, %v; want %d", n, err, prompt)
	}
}

// TestAdaptersAreSet loads two adapters, one by a relative path, and sets their scales.
func TestAdaptersAreSet(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"one.gguf", "two.gguf"} {
		b, err := ggufgen.Adapter(ggufgen.TinyOptions{}, ggufgen.AdapterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.WriteFile(name); err != nil {
			t.Fatal(err)
		}
	}
	s := rocm.Settings{}
	s.Adapters = []string{"one.gguf"}
	one := loadWith(t, s)
	holdsAdapters(t, one, llamaapi.LoRA{ID: 0, Path: filepath.Join(dir, "one.gguf"), Scale: 1})

	s.Adapters = []string{filepath.Join(dir, "two.gguf"), "one.gguf"}
	both := loadWith(t, s)
	if err := both.SetAdapters(t.Context(), []llamaapi.LoRAScale{{ID: 1, Scale: 0.25}, {ID: 0, Scale: -2}}); err != nil {
		t.Fatal(err)
	}
	holdsAdapters(
		t, both,
		llamaapi.LoRA{ID: 0, Path: filepath.Join(dir, "two.gguf"), Scale: -2},
		llamaapi.LoRA{ID: 1, Path: filepath.Join(dir, "one.gguf"), Scale: 0.25},
	)
}

func holdsAdapters(t *testing.T, m *rocm.Model, want ...llamaapi.LoRA) {
	t.Helper()
	if have, err := m.Adapters(t.Context()); err != nil || !slices.Equal(have, want) {
		t.Errorf("adapters %+v, %v; want %+v", have, err, want)
	}
}

// TestBatchFillsTheSlots looks at /slots while a batch runs.
func TestBatchFillsTheSlots(t *testing.T) {
	const slots = 3
	m := load(t, fakellama.Script{Slots: slots, NeverEnds: true, TokenDelay: time.Millisecond, ContextLen: 1 << 30}, inference.WithParallelSlots(slots))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = m.BatchGenerate(ctx, slices.Repeat([]string{"p"}, 2*slots), inference.WithMaxTokens(1<<20)) // ends with ctx
	}()
	together := 0
	for together < slots && ctx.Err() == nil {
		state, err := m.API().Slots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		busy := 0
		for _, s := range state {
			if s.Processing && s.Decoded() > 0 {
				busy++
			}
		}
		together = max(together, busy)
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-over
	if together != slots {
		t.Errorf("%d slots at work together, want %d", together, slots)
	}
}
