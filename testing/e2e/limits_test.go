//go:build e2e

package e2e

import (
	"errors"
	"math"
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// TestHugeLimit checks a limit that exceeds 32 bits, which is llama-server's type.
func TestHugeLimit(t *testing.T) {
	model := load(t, tiny(t, "qwen2", 1))
	const limit = 40
	want := len(slices.Collect(model.Generate(t.Context(), "The fox", inference.WithMaxTokens(limit))))
	if want < 4 {
		t.Fatalf("%d tokens, %v", want, model.Err())
	}
	for _, n := range []int{math.MaxInt/2 + 4, math.MaxInt/2 + 1, math.MaxInt} {
		count := 0
		for range model.Generate(t.Context(), "The fox", inference.WithMaxTokens(n)) {
			if count++; count == want {
				break
			}
		}
		if count != want || model.Err() != nil {
			t.Errorf("at most %d tokens gave %d, %v; %d came with a limit of %d", n, count, model.Err(), want, limit)
		}
	}
}

// TestEmptyPrompt uses two tokenizers: one adds no token before a prompt, the other does.
func TestEmptyPrompt(t *testing.T) {
	model := load(t, tiny(t, "qwen2", 1))
	if got := slices.Collect(model.Generate(t.Context(), "")); len(got) > 0 || !errors.Is(model.Err(), rocm.ErrInvalidOption) {
		t.Errorf("Generate: %d tokens, %v", len(got), model.Err())
	}
	if _, err := model.Classify(t.Context(), []string{"x", ""}); !errors.Is(err, rocm.ErrInvalidOption) {
		t.Errorf("Classify: %v", err)
	}
	model = load(t, tiny(t, "llama-spm", 1))
	if got := slices.Collect(model.Generate(t.Context(), "", inference.WithMaxTokens(4))); len(got) == 0 || model.Err() != nil {
		t.Errorf("with a beginning: %d tokens, %v", len(got), model.Err())
	}
	if _, err := model.Classify(t.Context(), []string{""}); err != nil {
		t.Errorf("with a beginning: %v", err)
	}
}
