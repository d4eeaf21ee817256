//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/testing/conformance"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// TestConformance puts the backend with the real server through every promise
// of the contract: on two real models, and on random weights with a tokenizer of
// each kind that the llama.cpp source has one of. The last two come from
// encoders; a causal model with them writes nonsense like all random ones, and
// begins and ends its texts as no other kind does.
func TestConformance(t *testing.T) {
	backend, ok := inference.Get("rocm")
	if !ok {
		t.Fatal("the backend is not registered")
	}
	random := func(tokenizer string) string { return tiny(t, tokenizer, 3) }
	for name, s := range map[string]conformance.Subject{
		"SmolLM2": {Model: realModel(t, models.SmolLM2()), Chat: true, Logits: true},
		// The promises that depend on the model; all of them take minutes on a busy
		// machine, for each token is drawn from a quarter of a million.
		"Gemma3": {Model: realModel(t, models.Gemma3()), Only: []string{
			"the model is described", "it ends at MaxTokens", "metrics speak of the last operation",
			"leaving the loop is no failure and frees the slot", "a batch keeps the order of its prompts",
			"classify samples what generate would", "closing ends what runs",
		}},

		"SPM": {Model: random("llama-spm"), Chat: true, Logits: true},
		"BPE": {Model: random("qwen2"), Chat: true, Logits: true},
		"WPM": {Model: random("bert-bge"), Chat: true, Logits: true},
		// Its quarter of a million logits in JSON would prove no more than those above.
		"UGM": {Model: random("nomic-bert-moe"), Chat: true},
	} {
		t.Run(name, func(t *testing.T) {
			s.Backend, s.Patience = backend, 4*time.Minute
			s.Options = []inference.LoadOption{inference.WithContextLen(2048), inference.WithParallelSlots(4)}
			s.TooLong = strings.Repeat("word ", 4000)
			conformance.Run(t, s)
		})
	}
}
