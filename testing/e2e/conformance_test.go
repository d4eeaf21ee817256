//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/testing/conformance"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// TestConformance puts the backend with the real server through every promise
// of the contract: on two real models, and on random weights with a tokenizer of
// each kind that the llama.cpp source has one of. The last two come from
// encoders; a causal model with them writes nonsense like all random ones, and
// begins and ends its texts as no other kind does. A quarter of a million logits in
// JSON, as Gemma3 and UGM have, would prove no more than those of the others.
func TestConformance(t *testing.T) {
	if _, ok := inference.Get(rocm.Name); !ok {
		t.Fatal("the backend is not registered")
	}
	// A Close that waits for who reads would not be back before the check is over.
	settings := rocm.Settings{DrainTimeout: time.Hour}
	oneThread := settings
	oneThread.Args = []string{"--threads", "1"}
	random := func(tokenizer string) string { return tiny(t, tokenizer, 3) }
	for name, s := range map[string]conformance.Subject{
		"SmolLM2": {Model: realModel(t, models.SmolLM2()), Chat: true, Logits: true},
		// One thread, for on a busy machine two of llama.cpp's wait for each other with
		// all they have.
		"Gemma3": {
			Model: realModel(t, models.Gemma3()), Backend: &rocm.Backend{Defaults: oneThread},
		},

		"SPM": {Model: random("llama-spm"), Chat: true, Logits: true},
		"BPE": {Model: random("qwen2"), Chat: true, Logits: true},
		"WPM": {Model: random("bert-bge"), Chat: true, Logits: true},
		"UGM": {Model: random("nomic-bert-moe"), Chat: true},
	} {
		t.Run(name, func(t *testing.T) {
			if s.Backend == nil {
				s.Backend = &rocm.Backend{Defaults: settings}
			}
			s.Patience = 4 * time.Minute
			s.Options = []inference.LoadOption{inference.WithContextLen(2048), inference.WithParallelSlots(4)}
			s.TooLong = strings.Repeat("word ", 4000)
			conformance.Run(t, s)
		})
	}
}
