package rocm

import (
	"context"
	"errors"
	"fmt"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
)

// Tokenizer turns text into the model's tokens and back.
type Tokenizer interface {
	// Tokenize gives the ids of a text; special tokens written in it count as
	// such, and none is added.
	Tokenize(ctx context.Context, text string) ([]int32, error)
	// Detokenize gives the text of ids. One outside of the vocabulary is an
	// ErrOption that says which.
	Detokenize(ctx context.Context, ids []int32) (string, error)
	// CountTokens is how many tokens a text takes as a prompt, with those that
	// the model puts before it.
	CountTokens(ctx context.Context, text string) (int, error)
}

// Embedder turns texts into vectors, one for each. The model must have been loaded
// with Settings.Embeddings, else the error wraps llamaapi.ErrNotSupported; where it
// does not pool by itself, with Settings.Pooling too (llamaapi.ErrNotPooled). A text
// of no tokens is an ErrOption that says which.
type Embedder interface {
	Embed(ctx context.Context, texts []string) ([][]float32, error)
}

// Reranker orders documents by how well they answer a query. The model must
// have been loaded with Settings.Reranking, else the error wraps
// llamaapi.ErrNotSupported.
type Reranker interface {
	Rerank(ctx context.Context, query string, documents []string, topN int) ([]llamaapi.RankedDocument, error)
}

// SlotKeeper saves what a slot has computed and takes it back. The model must
// have been loaded with Settings.SlotDir, else the error wraps
// llamaapi.ErrNotSupported; names are file names in it. A slot that the model does
// not have is an ErrOption.
type SlotKeeper interface {
	SaveSlot(ctx context.Context, slot int, name string) (llamaapi.SlotFile, error)
	RestoreSlot(ctx context.Context, slot int, name string) (llamaapi.SlotFile, error)
}

// AdapterSwitcher changes the scales of the LoRA adapters that were loaded; an id
// that none of them has is an ErrOption.
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
	if err := m.open(); err != nil {
		return none, err
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
	if size := m.srv.Info.VocabSize; size > 0 {
		for i, id := range ids {
			if id < 0 || int(id) >= size {
				return "", fmt.Errorf("%w: id %d is %d; the vocabulary has the ids from 0 to %d", ErrOption, i, id, size-1)
			}
		}
	}
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
	return ask(ctx, m, func(ctx context.Context) ([][]float32, error) {
		vectors, err := m.api.Embeddings(ctx, prompts)
		switch {
		case errors.Is(err, llamaapi.ErrNotPooled):
			return nil, fmt.Errorf("%w (Settings.Pooling)", err)
		case errors.Is(err, llamaapi.ErrInvalidRequest):
			return nil, m.whichIsEmpty(ctx, texts, err)
		}
		return vectors, settingFor(err, "Settings.Embeddings")
	})
}

// whichIsEmpty names the text for which the server refused all: one of no tokens,
// which an empty one is where the model puts nothing before it.
func (m *Model) whichIsEmpty(ctx context.Context, texts []string, refused error) error {
	for i, text := range texts {
		ids, err := m.api.Tokenize(ctx, text, llamaapi.TokenizeOptions{AddSpecial: true})
		if err == nil && len(ids) == 0 {
			return fmt.Errorf("%w: text %d (%q) has no tokens; leave it out: %w", ErrOption, i, text, refused)
		}
	}
	return refused
}

// settingFor adds the setting that switches on what the server was started without.
func settingFor(err error, name string) error {
	if errors.Is(err, llamaapi.ErrNotSupported) {
		return fmt.Errorf("%w; load the model with %s", err, name)
	}
	return err
}

// Rerank implements Reranker; topN 0 gives all documents.
func (m *Model) Rerank(ctx context.Context, query string, documents []string, topN int) ([]llamaapi.RankedDocument, error) {
	return ask(ctx, m, func(ctx context.Context) ([]llamaapi.RankedDocument, error) {
		ranked, err := m.api.Rerank(ctx, query, documents, topN)
		return ranked, settingFor(err, "Settings.Reranking")
	})
}

// SaveSlot implements SlotKeeper.
func (m *Model) SaveSlot(ctx context.Context, slot int, name string) (llamaapi.SlotFile, error) {
	return ask(ctx, m, func(ctx context.Context) (llamaapi.SlotFile, error) {
		if err := m.hasSlot(slot); err != nil {
			return llamaapi.SlotFile{}, err
		}
		file, err := m.api.SaveSlot(ctx, slot, name)
		return file, settingFor(err, "Settings.SlotDir")
	})
}

// RestoreSlot implements SlotKeeper.
func (m *Model) RestoreSlot(ctx context.Context, slot int, name string) (llamaapi.SlotFile, error) {
	return ask(ctx, m, func(ctx context.Context) (llamaapi.SlotFile, error) {
		if err := m.hasSlot(slot); err != nil {
			return llamaapi.SlotFile{}, err
		}
		file, err := m.api.RestoreSlot(ctx, slot, name)
		return file, settingFor(err, "Settings.SlotDir")
	})
}

// Adapters implements AdapterSwitcher.
func (m *Model) Adapters(ctx context.Context) ([]llamaapi.LoRA, error) {
	return ask(ctx, m, m.api.LoRAs)
}

// SetAdapters implements AdapterSwitcher for all later requests.
func (m *Model) SetAdapters(ctx context.Context, scales []llamaapi.LoRAScale) error {
	_, err := ask(ctx, m, func(ctx context.Context) (struct{}, error) {
		if err := m.hasAdapters(ctx, scales); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, m.api.SetLoRAs(ctx, scales)
	})
	return err
}
