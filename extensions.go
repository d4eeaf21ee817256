package rocm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
)

// Tokenizer converts text to the model's tokens and back.
type Tokenizer interface {
	// Tokenize returns the ids of a text. Special tokens written in the text count
	// as such, and none is added.
	Tokenize(ctx context.Context, text string) ([]int32, error)
	// Detokenize returns the text of ids. An id outside of the vocabulary is an
	// ErrInvalidOption with its position.
	Detokenize(ctx context.Context, ids []int32) (string, error)
	// CountTokens returns the number of tokens of a text as a prompt, with those
	// that the model puts before it.
	CountTokens(ctx context.Context, text string) (int, error)
}

// Embedder converts texts to vectors, one for each text. It needs a model that was
// loaded with Settings.Embeddings; otherwise the error wraps
// llamaapi.ErrNotSupported. A model without a pooling of its own needs
// Settings.Pooling too (llamaapi.ErrNotPooled). A text without tokens is an
// ErrInvalidOption with its position.
type Embedder interface {
	Embed(ctx context.Context, texts []string) ([][]float32, error)
}

// Reranker orders documents by how well they answer a query. It needs a model that
// was loaded with Settings.Reranking; otherwise the error wraps
// llamaapi.ErrNotSupported. With topN 0 it returns all documents.
type Reranker interface {
	Rerank(ctx context.Context, query string, documents []string, topN int) ([]llamaapi.RankedDocument, error)
}

// SlotStore saves the computed state of a slot to a file and restores it. It needs
// a model that was loaded with Settings.SlotDir; otherwise the error wraps
// llamaapi.ErrNotSupported. A name is a file name in that directory. A slot that
// the model does not have is an ErrInvalidOption.
type SlotStore interface {
	SaveSlot(ctx context.Context, slot int, name string) (llamaapi.SlotFile, error)
	RestoreSlot(ctx context.Context, slot int, name string) (llamaapi.SlotFile, error)
}

// AdapterController sets the scales of the LoRA adapters that were loaded. An id
// that no adapter has is an ErrInvalidOption.
type AdapterController interface {
	Adapters(ctx context.Context) ([]llamaapi.LoRA, error)
	SetAdapters(ctx context.Context, scales []llamaapi.LoRAScale) error
}

var (
	_ Tokenizer         = (*Model)(nil)
	_ Embedder          = (*Model)(nil)
	_ Reranker          = (*Model)(nil)
	_ SlotStore         = (*Model)(nil)
	_ AdapterController = (*Model)(nil)
)

// call runs f with a context that ends with the model.
func call[T any](ctx context.Context, m *Model, f func(context.Context) (T, error)) (T, error) {
	var none T
	if err := m.checkOpen(); err != nil {
		return none, err
	}
	joined, cancel := m.joinContexts(ctx)
	defer cancel()
	out, err := f(joined)
	if err != nil {
		return none, m.translateError(ctx, err)
	}
	return out, nil
}

// Tokenize implements Tokenizer.
func (m *Model) Tokenize(ctx context.Context, text string) ([]int32, error) {
	return call(ctx, m, func(ctx context.Context) ([]int32, error) {
		return m.api.Tokenize(ctx, text, llamaapi.TokenizeOptions{})
	})
}

// Detokenize implements Tokenizer.
func (m *Model) Detokenize(ctx context.Context, ids []int32) (string, error) {
	if size := m.srv.Info.VocabSize; size > 0 {
		for i, id := range ids {
			if id < 0 || int(id) >= size {
				return "", invalidOption("id %d is %d; the vocabulary has the ids from 0 to %d", i, id, size-1)
			}
		}
	}
	return call(ctx, m, func(ctx context.Context) (string, error) { return m.api.Detokenize(ctx, ids) })
}

// CountTokens implements Tokenizer.
func (m *Model) CountTokens(ctx context.Context, text string) (int, error) {
	return call(ctx, m, func(ctx context.Context) (int, error) {
		ids, err := m.api.Tokenize(ctx, text, llamaapi.TokenizeOptions{AddSpecial: true})
		return len(ids), err
	})
}

// Embed implements Embedder. The vectors are the server's, not normalised again.
func (m *Model) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	prompts := make([]llamaapi.Prompt, len(texts))
	for i, t := range texts {
		prompts[i] = llamaapi.TextPrompt(t)
	}
	return call(ctx, m, func(ctx context.Context) ([][]float32, error) {
		vectors, err := m.api.Embeddings(ctx, prompts)
		switch {
		case errors.Is(err, llamaapi.ErrNotPooled):
			return nil, fmt.Errorf("%w (Settings.Pooling)", err)
		case errors.Is(err, llamaapi.ErrInvalidRequest):
			return nil, m.findEmptyText(ctx, texts, err)
		}
		return vectors, addSetting(err, "Settings.Embeddings")
	})
}

// findEmptyText adds to the server's error which text has no tokens. An empty text
// has none where the model puts no token before it.
func (m *Model) findEmptyText(ctx context.Context, texts []string, rejected error) error {
	for i, text := range texts {
		ids, err := m.api.Tokenize(ctx, text, llamaapi.TokenizeOptions{AddSpecial: true})
		if err == nil && len(ids) == 0 {
			return invalidOption("text %d (%q) has no tokens; remove it: %w", i, text, rejected)
		}
	}
	return rejected
}

// addSetting adds the setting that enables a feature to the error of a server that
// was started without the feature.
func addSetting(err error, name string) error {
	if errors.Is(err, llamaapi.ErrNotSupported) {
		return fmt.Errorf("%w; load the model with %s", err, name)
	}
	return err
}

// Rerank implements Reranker.
func (m *Model) Rerank(ctx context.Context, query string, documents []string, topN int) ([]llamaapi.RankedDocument, error) {
	return call(ctx, m, func(ctx context.Context) ([]llamaapi.RankedDocument, error) {
		ranked, err := m.api.Rerank(ctx, query, documents, topN)
		return ranked, addSetting(err, "Settings.Reranking")
	})
}

// SaveSlot implements SlotStore.
func (m *Model) SaveSlot(ctx context.Context, slot int, name string) (llamaapi.SlotFile, error) {
	return call(ctx, m, func(ctx context.Context) (llamaapi.SlotFile, error) {
		if err := m.checkSlot(slot); err != nil {
			return llamaapi.SlotFile{}, err
		}
		file, err := m.api.SaveSlot(ctx, slot, name)
		return file, addSetting(err, "Settings.SlotDir")
	})
}

// RestoreSlot implements SlotStore.
func (m *Model) RestoreSlot(ctx context.Context, slot int, name string) (llamaapi.SlotFile, error) {
	return call(ctx, m, func(ctx context.Context) (llamaapi.SlotFile, error) {
		if err := m.checkSlot(slot); err != nil {
			return llamaapi.SlotFile{}, err
		}
		file, err := m.api.RestoreSlot(ctx, slot, name)
		return file, addSetting(err, "Settings.SlotDir")
	})
}

// Adapters implements AdapterController.
func (m *Model) Adapters(ctx context.Context) ([]llamaapi.LoRA, error) {
	list, err := call(ctx, m, m.api.LoRAs)
	if scales := m.scales.Load(); err == nil && scales != nil { // also where the process is a new one
		for i := range list {
			list[i].Scale = 0
			for _, s := range *scales {
				if s.ID == list[i].ID {
					list[i].Scale = s.Scale
				}
			}
		}
	}
	return list, err
}

// SetAdapters implements AdapterController. The scales apply to all later requests,
// also after a restart; an adapter that is not listed has the scale 0.
func (m *Model) SetAdapters(ctx context.Context, scales []llamaapi.LoRAScale) error {
	_, err := call(ctx, m, func(ctx context.Context) (struct{}, error) {
		if err := m.checkAdapters(ctx, scales); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, m.api.SetLoRAs(ctx, scales)
	})
	if err == nil {
		scales = slices.Clone(scales)
		m.scales.Store(&scales)
	}
	return err
}
