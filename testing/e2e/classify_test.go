//go:build e2e

package e2e

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/testing/cases"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// vocabularyID returns the id of a token in a tokenizer of the llama.cpp source, given as
// in the tokenizer's file.
func vocabularyID(t *testing.T, tokenizer, piece string) int32 {
	t.Helper()
	f, err := gguf.Open(filepath.Join(os.Getenv(models.EnvSource), "models", "ggml-vocab-"+tokenizer+".gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	list, ok := f.Lookup("tokenizer.ggml.tokens")
	pieces, isArray := list.Array()
	if !ok || !isArray {
		t.Fatalf("%s has no list of tokens", tokenizer)
	}
	id := int32(0)
	for p, err := range pieces.Strings() {
		if err != nil {
			t.Fatal(err)
		}
		if p == piece {
			return id
		}
		id++
	}
	t.Fatalf("%s has no token %q", tokenizer, piece)
	return 0
}

// TestClassifyPartOfARune samples a token that only begins a rune, for which
// llama-server returns no probabilities. A random model of each kind of tokenizer
// that has such tokens is biased towards one of them. The two kinds that have only
// whole runes use a rune of three bytes, for which the server returns probabilities
// at once. In CI those of UGM's 250,000 tokens are left out.
func TestClassifyPartOfARune(t *testing.T) {
	for kind, tt := range map[string]struct {
		tokenizer, piece string // as in the file
		text             string // of the result
	}{
		"SPM": {"llama-spm", "<0xF0>", ""},
		"BPE": {"qwen2", "ð", ""}, // byte 0xF0, as GPT-2 writes bytes
		"WPM": {"bert-bge", "▁三", " 三"},
		"UGM": {"nomic-bert-moe", "三", "三"},
	} {
		t.Run(kind, func(t *testing.T) {
			loud := vocabularyID(t, tt.tokenizer, tt.piece)
			path, err := models.Tiny(t.TempDir(), tt.tokenizer, ggufgen.TinyOptions{Seed: 5, Loud: loud})
			if err != nil {
				t.Fatal(err)
			}
			model := load(t, path)
			prompt := loudPrompt(t, model, loud)
			var opts []inference.GenerateOption
			if kind != "UGM" || cases.Of(false, false, true) {
				opts = append(opts, inference.WithLogits())
			}
			got, err := model.Classify(t.Context(), []string{prompt}, opts...)
			if err != nil {
				t.Fatal(err)
			}
			if r := got[0]; r.Token != (inference.Token{ID: loud, Text: tt.text}) {
				t.Errorf("%q is classified as %+v, want token %d with the text %q", prompt, r.Token, loud, tt.text)
			}
			if len(opts) > 0 {
				checkLogits(t, got[0], model.Info().VocabSize)
			}
		})
	}
}

// loudPrompt returns a prompt after which the loud token is sampled.
func loudPrompt(t *testing.T, model *rocm.Model, loud int32) string {
	t.Helper()
	var results []inference.ClassifyResult
	for n := range 64 {
		prompt := fmt.Sprintf("number %d", n)
		got, err := model.Classify(t.Context(), []string{prompt})
		if err != nil {
			t.Fatal(err)
		}
		if got[0].Token.ID == loud {
			return prompt
		}
		results = append(results, got...)
	}
	t.Fatalf("token %d is never sampled: %+v", loud, results)
	return ""
}

// checkLogits checks that logits are a distribution over the vocabulary, and that the
// sampled token is the most likely one.
func checkLogits(t *testing.T, r inference.ClassifyResult, vocab int) {
	t.Helper()
	if len(r.Logits) != vocab {
		t.Fatalf("%d logits for a vocabulary of %d", len(r.Logits), vocab)
	}
	sum := 0.0
	for _, l := range r.Logits {
		sum += math.Exp(float64(l))
	}
	if math.Abs(sum-1) > 1e-3 {
		t.Errorf("the probabilities sum up to %v", sum)
	}
	if best := slices.Max(r.Logits); r.Logits[r.Token.ID] != best {
		t.Errorf("the logit of token %d is %v, the largest is %v", r.Token.ID, r.Logits[r.Token.ID], best)
	}
}
