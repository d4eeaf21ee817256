//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/testing/cases"
	"forge.lthn.ai/core/go-rocm/testing/conformance"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// TestConformance runs the conformance suite on the backend with the real server: on two
// real models, and on random weights with a tokenizer of each kind in the llama.cpp
// source. The last two tokenizers are those of encoders, which add special tokens at both
// ends of a text. Gemma3 and UGM run without logits: 250,000 logits in JSON would prove no
// more than those of the others. CI runs all checks on SmolLM2 and SPM, and on the others
// those of texts.
func TestConformance(t *testing.T) {
	if _, ok := inference.Get(rocm.Name); !ok {
		t.Fatal("the backend is not registered")
	}
	// A Close that waits for readers would not return before the end of the check.
	settings := rocm.Settings{Timeouts: rocm.Timeouts{Drain: time.Hour}}
	oneThread := settings
	oneThread.Args = []string{"--threads", "1"}
	random := func(tokenizer string) string { return tiny(t, tokenizer, 3) }
	for name, s := range map[string]conformance.Subject{
		"SmolLM2": {Model: realModel(t, models.SmolLM2()), Chat: true, Logits: true},
		// One thread: on a busy machine, two threads of llama.cpp spin while they wait for
		// each other.
		"Gemma3": {
			Model: realModel(t, models.Gemma3()), Backend: &rocm.Backend{Defaults: oneThread}, Texts: true,
		},

		"SPM": {Model: random("llama-spm"), Chat: true, Logits: true},
		"BPE": {Model: random("qwen2"), Chat: true, Logits: true, Texts: true},
		"WPM": {Model: random("bert-bge"), Chat: true, Logits: true, Texts: true},
		"UGM": {Model: random("nomic-bert-moe"), Chat: true, Texts: true},
	} {
		t.Run(name, func(t *testing.T) {
			if s.Backend == nil {
				s.Backend = &rocm.Backend{Defaults: settings}
			}
			s.Texts = s.Texts && cases.Of(true, true, false)
			s.Patience = 4 * time.Minute
			s.Options = []inference.LoadOption{inference.WithContextLen(2048), inference.WithParallelSlots(4)}
			s.TooLong = strings.Repeat("word ", 4000)
			conformance.Run(t, s)
		})
	}
}
