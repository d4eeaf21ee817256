package child

import (
	"context"
	"fmt"

	"forge.lthn.ai/core/go-rocm"
	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// Batch compares BatchGenerate over four slots with a loop of Generate.
func Batch(ctx context.Context, in Input, prompts, tokens int) (page.Section, error) {
	var none page.Section
	const slots = 4
	m, err := in.load(ctx, in.Real, slots, 128, "")
	if err != nil {
		return none, err
	}
	defer func() { _ = m.Close() }()
	list := make([]string, prompts)
	for i := range list {
		list[i] = fmt.Sprintf("%s with %d houses. In the first house", prompt, i+2)
	}
	batch := page.Seconds(func(ctx context.Context) error { return generateBatch(ctx, m, list, tokens) })
	loop := page.Seconds(func(ctx context.Context) error { return generateEach(ctx, m, list, tokens) })
	samples, err := page.Interleave(ctx, in.Rounds, in.logged("BatchGenerate", batch), in.logged("a loop", loop))
	if err != nil {
		return none, err
	}
	b, l := page.Median(samples[0]), page.Median(samples[1])
	all := float64(prompts * tokens)
	return page.Section{
		Name: "batch", Title: "Many prompts at once",
		Text: []string{fmt.Sprintf("`BatchGenerate` of %d prompts over %d slots, %d tokens each, against a loop of `Generate` on the same child. Model: %s. Medians of %d rounds.",
			prompts, slots, tokens, in.Real.Name, in.Rounds)},
		Head: []string{"", "seconds", "tokens per second", "times the loop"},
		Rows: [][]string{
			{"**BatchGenerate**", page.Figure(b), page.Figure(all / b), page.Figure(page.Median(page.Ratios(samples[1], samples[0])))},
			{"a loop of Generate", page.Figure(l), page.Figure(all / l), ""},
		},
	}, nil
}

// generateBatch generates for all prompts at once.
func generateBatch(ctx context.Context, m *rocm.Model, prompts []string, tokens int) error {
	results, err := m.BatchGenerate(ctx, prompts, inference.WithMaxTokens(tokens))
	if err != nil {
		return err
	}
	for i, r := range results {
		if r.Err != nil {
			return fmt.Errorf("prompt %d: %w", i, r.Err)
		}
	}
	return nil
}

// generateEach generates for one prompt after the other.
func generateEach(ctx context.Context, m *rocm.Model, prompts []string, tokens int) error {
	for i, p := range prompts {
		for range m.Generate(ctx, p, inference.WithMaxTokens(tokens)) {
		}
		if err := m.Err(); err != nil {
			return fmt.Errorf("prompt %d: %w", i, err)
		}
	}
	return nil
}

// logged returns a variant that prints each measurement.
func (in *Input) logged(what string, measure page.Variant) page.Variant {
	return func(ctx context.Context) (float64, error) {
		v, err := measure(ctx)
		if err == nil {
			in.printf("%s: %.2f s", what, v)
		}
		return v, err
	}
}
