//go:build linux && amd64

package rocm_test

import (
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

func TestTokenizer(t *testing.T) {
	m := load(t, fakellama.Script{})
	const want = "Grüße, 世界 🌍"
	ids, err := m.Tokenize(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Detokenize(t.Context(), ids)
	if err != nil || got != want {
		t.Errorf("%q became %q (%v)", want, got, err)
	}
	n, err := m.CountTokens(t.Context(), want)
	if err != nil || n < len(ids) {
		t.Errorf("%d tokens counted for %d (%v)", n, len(ids), err)
	}
	if _, err := m.Embed(t.Context(), []string{"x"}); !errors.Is(err, llamaapi.ErrNotSupported) {
		t.Errorf("embeddings of a model that was not loaded for them: %v", err)
	}
}

func TestEmbedAndRerank(t *testing.T) {
	s := rocm.Settings{}
	s.Embeddings, s.Pooling = true, "mean"
	m := loadWith(t, fakellama.Script{}, s)
	vectors, err := m.Embed(t.Context(), []string{"a river", "a mountain", "a river"})
	if err != nil || len(vectors) != 3 || len(vectors[0]) == 0 {
		t.Fatalf("%d vectors, %v", len(vectors), err)
	}
	for i, v := range vectors[0] {
		if v != vectors[2][i] {
			t.Fatal("the same text has two vectors")
		}
	}
	if args := strings.Join(m.Server().Child.Diagnose().Argv, " "); !strings.Contains(args, "--embeddings --pooling mean") {
		t.Errorf("started as %s", args)
	}

	s = rocm.Settings{}
	s.Reranking = true
	m = loadWith(t, fakellama.Script{}, s)
	ranked, err := m.Rerank(t.Context(), "water", []string{"a river", "a mountain", "a desert"}, 2)
	if err != nil || len(ranked) != 2 || ranked[0].Score < ranked[1].Score {
		t.Errorf("%+v, %v", ranked, err)
	}
}

// An error that a setting cures names the setting, beside the server's message.
func TestErrorsNameTheSetting(t *testing.T) {
	m := load(t, fakellama.Script{})
	for name, tt := range map[string]struct {
		call   func() error
		remedy string
		server string
	}{
		"Embed": {func() error {
			_, err := m.Embed(t.Context(), []string{"x"})
			return err
		}, "Settings.Embeddings", "--embeddings"},
		"Rerank": {func() error {
			_, err := m.Rerank(t.Context(), "x", []string{"y"}, 0)
			return err
		}, "Settings.Reranking", "--reranking"},
		"SaveSlot": {func() error {
			_, err := m.SaveSlot(t.Context(), 0, "x")
			return err
		}, "Settings.SlotDir", "--slot-save-path"},
		"RestoreSlot": {func() error {
			_, err := m.RestoreSlot(t.Context(), 0, "x")
			return err
		}, "Settings.SlotDir", "--slot-save-path"},
	} {
		err := tt.call()
		var said *llamaapi.APIError
		if !errors.Is(err, llamaapi.ErrNotSupported) || !errors.As(err, &said) || said.Status != http.StatusNotImplemented ||
			!strings.Contains(err.Error(), tt.remedy) || !strings.Contains(err.Error(), tt.server) {
			t.Errorf("%s: %v; want the server's words and %s", name, err, tt.remedy)
		}
	}
}

// canned is a transport that answers every request with the same body.
type canned string

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(string(c))), Request: r}, nil
}

func TestEmbedWithoutPooling(t *testing.T) {
	m := load(t, fakellama.Script{})
	m.Server().Child.HTTPClient().Transport = canned(`[{"index":0,"embedding":[[1],[2]]}]`)
	_, err := m.Embed(t.Context(), []string{"two tokens"})
	if !errors.Is(err, llamaapi.ErrNotPooled) || !strings.Contains(err.Error(), "Settings.Pooling") {
		t.Errorf("got %v, want ErrNotPooled and the setting", err)
	}
}

func TestErrorsNameThePosition(t *testing.T) {
	m := loadWith(t, fakellama.Script{}, rocm.Settings{Embeddings: true})
	var said *llamaapi.APIError
	_, err := m.Embed(t.Context(), []string{"a", "bb", ""})
	if !errors.Is(err, rocm.ErrInvalidOption) || !errors.As(err, &said) || said.Status != http.StatusBadRequest || !strings.Contains(err.Error(), "text 2") {
		t.Errorf("an empty text: %v; want ErrInvalidOption, the server's message and the text's position", err)
	}
	size := int32(m.Info().VocabSize)
	for _, id := range []int32{size, -1} {
		if _, err := m.Detokenize(t.Context(), []int32{5, id}); !errors.Is(err, rocm.ErrInvalidOption) || !strings.Contains(err.Error(), "id 1 ") {
			t.Errorf("id %d of a vocabulary of %d: %v; want ErrInvalidOption and its position", id, size, err)
		}
	}
	if text, err := m.Detokenize(t.Context(), []int32{int32(fakellama.VocabSize() - 1)}); err != nil {
		t.Errorf("an id that is there: %q, %v", text, err)
	}
}

// TestSlotIsSavedAndRestored saves a slot, erases it and restores it.
func TestSlotIsSavedAndRestored(t *testing.T) {
	s := rocm.Settings{}
	s.SlotDir, s.Slots = t.TempDir(), 2
	m := loadWith(t, fakellama.Script{}, s)
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
	one := loadWith(t, fakellama.Script{}, s)
	holdsAdapters(t, one, llamaapi.LoRA{ID: 0, Path: filepath.Join(dir, "one.gguf"), Scale: 1})

	s.Adapters = []string{filepath.Join(dir, "two.gguf"), "one.gguf"}
	both := loadWith(t, fakellama.Script{}, s)
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

// llama-server itself accepts any slot number, by its remainder, and any adapter.
func TestSlotsAndAdaptersOutOfRange(t *testing.T) {
	s := rocm.Settings{}
	s.SlotDir, s.Slots = t.TempDir(), 2
	m := loadWith(t, fakellama.Script{Slots: 2, SlotSave: true, Adapters: []string{"a.gguf", "b.gguf"}}, s)
	ctx := t.Context()
	for _, slot := range []int{-1, 2, 9} {
		if f, err := m.SaveSlot(ctx, slot, "x"); !errors.Is(err, rocm.ErrInvalidOption) || !strings.Contains(err.Error(), "0 to 1") {
			t.Errorf("saved slot %d as %+v, %v", slot, f, err)
		}
		if f, err := m.RestoreSlot(ctx, slot, "x"); !errors.Is(err, rocm.ErrInvalidOption) {
			t.Errorf("restored slot %d as %+v, %v", slot, f, err)
		}
	}
	if _, err := m.SaveSlot(ctx, 1, "x"); err != nil {
		t.Error(err)
	}
	for _, id := range []int{-1, 2, 7} {
		if err := m.SetAdapters(ctx, []llamaapi.LoRAScale{{ID: 1, Scale: 1}, {ID: id}}); !errors.Is(err, rocm.ErrInvalidOption) || !strings.Contains(err.Error(), "0 to 1") {
			t.Errorf("set adapter %d: %v", id, err)
		}
	}
	if err := m.SetAdapters(ctx, []llamaapi.LoRAScale{{ID: 1, Scale: 0.5}}); err != nil {
		t.Error(err)
	}
	st := m.Stream(ctx, rocm.Request{Prompt: rocm.TextPrompt("x"), Adapters: []llamaapi.LoRAScale{{ID: 7}}, GenerateConfig: inference.GenerateConfig{MaxTokens: 4}})
	if _, ok := st.Next(); ok || !errors.Is(st.Err(), rocm.ErrInvalidOption) {
		t.Errorf("a request with adapter 7: %v", st.Err())
	}
}

// The scales of SetAdapters belong to the model, not to a process.
func TestAdapterScalesOutliveACrash(t *testing.T) {
	adapter := filepath.Join(t.TempDir(), "a.gguf")
	b, err := ggufgen.Adapter(ggufgen.TinyOptions{}, ggufgen.AdapterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.WriteFile(adapter); err != nil {
		t.Fatal(err)
	}
	m := loadWith(t, fakellama.Script{}, rocm.Settings{Options: plan.Options{Adapters: []string{adapter}}, Restart: rocm.Restart{MinBackoff: time.Millisecond}})
	if err := m.SetAdapters(t.Context(), []llamaapi.LoRAScale{{ID: 0, Scale: 0.25}}); err != nil {
		t.Fatal(err)
	}
	kill(t, m)
	collect(m.Generate(t.Context(), "x", inference.WithMaxTokens(2)))
	if m.Err() != nil {
		t.Error(m.Err())
	}
	holdsAdapters(t, m, llamaapi.LoRA{ID: 0, Path: adapter, Scale: 0.25})
}
