//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// TestTinyModels runs random weights with real tokenizers of several kinds. The text
// has no meaning, but the backend's handling of it can be checked.
func TestTinyModels(t *testing.T) {
	for _, tokenizer := range []string{"llama-spm", "llama-bpe", "qwen2", "gpt-2"} {
		t.Run(tokenizer, func(t *testing.T) {
			model := load(t, tiny(t, tokenizer, 1))
			if got := model.ModelType(); got != "llama" {
				t.Errorf("model type %q", got)
			}
			info := model.Info()
			if info.NumLayers != 2 || info.HiddenSize != 64 || info.VocabSize == 0 {
				t.Errorf("info %+v", info)
			}
			const limit = 24
			generate := func() (ids []int32, text string) {
				for token := range model.Generate(t.Context(), "The quick brown fox", inference.WithMaxTokens(limit)) {
					ids = append(ids, token.ID)
					text += token.Text
				}
				if err := model.Err(); err != nil {
					t.Fatal(err)
				}
				return ids, text
			}
			ids, text := generate()
			if len(ids) == 0 || len(ids) > limit {
				t.Fatalf("%d tokens for a limit of %d", len(ids), limit)
			}
			for _, id := range ids {
				if id < 0 || int(id) >= info.VocabSize {
					t.Errorf("token %d of a vocabulary of %d", id, info.VocabSize)
				}
			}
			if !utf8.ValidString(text) {
				t.Errorf("text is not valid UTF-8: %q", text)
			}
			if m := model.Metrics(); m.GeneratedTokens != len(ids) || m.PromptTokens == 0 || m.TotalDuration <= 0 {
				t.Errorf("metrics %+v for %d tokens", m, len(ids))
			}
			if again, _ := generate(); !slices.Equal(ids, again) {
				t.Errorf("temperature 0 gave %v, then %v", ids, again)
			}
		})
	}
}

// TestTokenizerRoundTrip tokenizes a text with the child and converts the tokens back.
func TestTokenizerRoundTrip(t *testing.T) {
	model := load(t, tiny(t, "qwen2", 1))
	const text = "Grüße, 世界! 🙂 x=1"
	ids, err := model.Tokenize(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	back, err := model.Detokenize(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(back) != text {
		t.Errorf("%q came back as %q", text, back)
	}
}

// TestBatchKeepsOrder runs more prompts than there are slots and compares each
// answer with that of the prompt alone.
func TestBatchKeepsOrder(t *testing.T) {
	model := load(t, tiny(t, "llama-spm", 3), inference.WithParallelSlots(2))
	prompts := []string{"one", "two two", "three three three", "four", "five"}
	results, err := model.BatchGenerate(t.Context(), prompts, inference.WithMaxTokens(8))
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != len(prompts) {
		t.Fatalf("%d results for %d prompts", len(results), len(prompts))
	}
	for i, prompt := range prompts {
		if results[i].Err != nil {
			t.Errorf("%q: %v", prompt, results[i].Err)
		}
		if len(results[i].Tokens) == 0 || len(results[i].Tokens) > 8 {
			t.Errorf("%q: %d tokens", prompt, len(results[i].Tokens))
		}
		var alone []inference.Token
		for token := range model.Generate(t.Context(), prompt, inference.WithMaxTokens(1)) {
			alone = append(alone, token)
		}
		if err := model.Err(); err != nil {
			t.Fatal(err)
		}
		if len(alone) != 1 || results[i].Tokens[0] != alone[0] {
			t.Errorf("%q: first token %v in the batch, %v alone", prompt, results[i].Tokens[0], alone)
		}
	}
}
