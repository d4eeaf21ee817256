//go:build e2e

package e2e

import (
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/testing/conformance"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// TestConformance puts the backend with the real server through every promise
// of the contract, on random weights with tokenizers of several kinds and on a
// real model.
func TestConformance(t *testing.T) {
	backend, ok := inference.Get("rocm")
	if !ok {
		t.Fatal("the backend is not registered")
	}
	subjects := map[string]conformance.Subject{
		"SmolLM2": {Model: realModel(t, models.SmolLM2()), Chat: true},
	}
	for _, tokenizer := range []string{"llama-spm", "qwen2"} {
		subjects[tokenizer] = conformance.Subject{Model: tiny(t, tokenizer, 3), Chat: false}
	}
	for name, s := range subjects {
		t.Run(name, func(t *testing.T) {
			s.Backend, s.Logits, s.Patience = backend, true, 4*time.Minute
			s.Options = []inference.LoadOption{inference.WithContextLen(2048), inference.WithParallelSlots(4)}
			conformance.Run(t, s)
		})
	}
}
