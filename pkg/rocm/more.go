package rocm

import (
	"context"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
)

// Tokenizer turns text into the model's tokens and back.
type Tokenizer interface {
	// Tokenize gives the ids of a text; special tokens written in it count as
	// such, and none is added.
	Tokenize(ctx context.Context, text string) ([]int32, error)
	// Detokenize gives the text of ids.
	Detokenize(ctx context.Context, ids []int32) (string, error)
	// CountTokens is how many tokens a text takes as a prompt, with those that
	// the model puts before it.
	CountTokens(ctx context.Context, text string) (int, error)
}

// Embedder turns texts into vectors. The model must have been loaded with
// Settings.Embeddings.
type Embedder interface {
	Embed(ctx context.Context, texts []string) ([][]float32, error)
}

// Reranker orders documents by how well they answer a query. The model must
// have been loaded with Settings.Reranking.
type Reranker interface {
	Rerank(ctx context.Context, query string, documents []string, topN int) ([]llamaapi.Ranked, error)
}

// SlotKeeper saves what a slot has computed and takes it back. The model must
// have been loaded with Settings.SlotDir; names are file names in it.
type SlotKeeper interface {
	SaveSlot(ctx context.Context, slot int, name string) (llamaapi.SlotFile, error)
	RestoreSlot(ctx context.Context, slot int, name string) (llamaapi.SlotFile, error)
}

// AdapterSwitcher changes the scales of the LoRA adapters that were loaded.
type AdapterSwitcher interface {
	Adapters(ctx context.Context) ([]llamaapi.LoRA, error)
	SetAdapters(ctx context.Context, scales []llamaapi.LoRAScale) error
}

var (
	_ Tokenizer       = (*Model)(nil)
	_ Embedder        = (*Model)(nil)
	_ Reranker        = (*Model)(nil)
	_ SlotKeeper      = (*Model)(nil)
	_ AdapterSwitcher = (*Model)(nil)
)

// ask runs one call under the model's life.
func ask[T any](ctx context.Context, m *Model, call func(context.Context) (T, error)) (T, error) {
	var none T
	if m.life.Err() != nil {
		return none, ErrClosed
	}
	joined, cancel := m.during(ctx)
	defer cancel()
	out, err := call(joined)
	if err != nil {
		return none, m.explain(ctx, err)
	}
	return out, nil
}

// Tokenize implements Tokenizer.
func (m *Model) Tokenize(ctx context.Context, text string) ([]int32, error) {
	return ask(ctx, m, func(ctx context.Context) ([]int32, error) {
		return m.api.Tokenize(ctx, text, llamaapi.TokenizeOptions{})
	})
}

// Detokenize implements Tokenizer.
func (m *Model) Detokenize(ctx context.Context, ids []int32) (string, error) {
	return ask(ctx, m, func(ctx context.Context) (string, error) { return m.api.Detokenize(ctx, ids) })
}

// CountTokens implements Tokenizer.
func (m *Model) CountTokens(ctx context.Context, text string) (int, error) {
	return ask(ctx, m, func(ctx context.Context) (int, error) {
		ids, err := m.api.Tokenize(ctx, text, llamaapi.TokenizeOptions{AddSpecial: true})
		return len(ids), err
	})
}

// Embed implements Embedder; the vectors are as the server gives them.
func (m *Model) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	prompts := make([]llamaapi.Prompt, len(texts))
	for i, t := range texts {
		prompts[i] = llamaapi.TextPrompt(t)
	}
	return ask(ctx, m, func(ctx context.Context) ([][]float32, error) { return m.api.Embeddings(ctx, prompts) })
}

// Rerank implements Reranker; topN 0 gives all documents.
func (m *Model) Rerank(ctx context.Context, query string, documents []string, topN int) ([]llamaapi.Ranked, error) {
	return ask(ctx, m, func(ctx context.Context) ([]llamaapi.Ranked, error) {
		return m.api.Rerank(ctx, query, documents, topN)
	})
}

// SaveSlot implements SlotKeeper.
func (m *Model) SaveSlot(ctx context.Context, slot int, name string) (llamaapi.SlotFile, error) {
	return ask(ctx, m, func(ctx context.Context) (llamaapi.SlotFile, error) { return m.api.SaveSlot(ctx, slot, name) })
}

// RestoreSlot implements SlotKeeper.
func (m *Model) RestoreSlot(ctx context.Context, slot int, name string) (llamaapi.SlotFile, error) {
	return ask(ctx, m, func(ctx context.Context) (llamaapi.SlotFile, error) { return m.api.RestoreSlot(ctx, slot, name) })
}

// Adapters implements AdapterSwitcher.
func (m *Model) Adapters(ctx context.Context) ([]llamaapi.LoRA, error) {
	return ask(ctx, m, m.api.LoRAs)
}

// SetAdapters implements AdapterSwitcher for all later requests.
func (m *Model) SetAdapters(ctx context.Context, scales []llamaapi.LoRAScale) error {
	_, err := ask(ctx, m, func(ctx context.Context) (struct{}, error) { return struct{}{}, m.api.SetLoRAs(ctx, scales) })
	return err
}
