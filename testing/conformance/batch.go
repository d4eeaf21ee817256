package conformance

import (
	"context"
	"errors"
	"fmt"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

func batchChecks() []Check {
	return []Check{
		{Name: "a batch keeps the order of its prompts", Run: batchOrder},
		{Name: "a batch of nothing is nothing", Run: func(ctx context.Context, _ Subject, m inference.TextModel) error {
			out, err := m.BatchGenerate(ctx, nil)
			if err != nil || len(out) != 0 {
				return fmt.Errorf("batch: %d results, err %w", len(out), orNil(err))
			}
			res, err := m.Classify(ctx, nil)
			if err != nil || len(res) != 0 {
				return fmt.Errorf("classify: %d results, err %w", len(res), orNil(err))
			}
			return nil
		}},
		{Name: "the end of the context stops a batch", Run: batchCancel},
		{Name: "classify samples what generate would", Run: classify, Texts: true},
		{
			Name: "logits span the vocabulary and agree with the token", Run: logits, Texts: true,
			Needs: func(s Subject) bool { return s.Logits },
		},
	}
}

// batchOrder repeats the prompts, so that the batch is larger than the number of
// slots.
func batchOrder(ctx context.Context, s Subject, m inference.TextModel) error {
	var prompts []string
	for len(prompts) < many {
		prompts = append(prompts, s.Prompts...)
	}
	out, err := m.BatchGenerate(ctx, prompts, inference.WithMaxTokens(few))
	if err != nil {
		return err
	}
	if len(out) != len(prompts) {
		return fmt.Errorf("%d results for %d prompts", len(out), len(prompts))
	}
	for i, r := range out {
		if r.Err != nil {
			return fmt.Errorf("prompt %d: %w", i, r.Err)
		}
		if len(r.Tokens) == 0 || len(r.Tokens) > few {
			return fmt.Errorf("prompt %d: %d tokens", i, len(r.Tokens))
		}
		if err := valid(r.Tokens); err != nil {
			return fmt.Errorf("prompt %d: %w", i, err)
		}
	}
	if !s.Steady {
		return nil
	}
	for i, p := range prompts {
		alone, err := gather(ctx, m, p, inference.WithMaxTokens(few))
		if err != nil {
			return err
		}
		if err := same(out[i].Tokens, alone); err != nil {
			return fmt.Errorf("prompt %d (%q) in the batch, compared with alone: %w", i, p, err)
		}
	}
	return nil
}

func batchCancel(ctx context.Context, s Subject, m inference.TextModel) error {
	inner, cancel := context.WithCancel(ctx)
	cancel()
	out, err := m.BatchGenerate(inner, s.Prompts, inference.WithMaxTokens(endless))
	if err == nil {
		for _, r := range out {
			err = errors.Join(err, r.Err)
		}
	}
	if !errors.Is(err, context.Canceled) {
		return fmt.Errorf("batch: err %w, want context.Canceled", orNil(err))
	}
	if _, err := m.Classify(inner, s.Prompts); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("classify: err %w, want context.Canceled", orNil(err))
	}
	_, err = gather(ctx, m, s.Prompts[0], inference.WithMaxTokens(1))
	return err
}

func classify(ctx context.Context, s Subject, m inference.TextModel) error {
	all, err := m.Classify(ctx, s.Prompts)
	if err != nil {
		return err
	}
	if len(all) != len(s.Prompts) {
		return fmt.Errorf("%d results for %d prompts", len(all), len(s.Prompts))
	}
	for i, p := range s.Prompts {
		if all[i].Logits != nil {
			return fmt.Errorf("%q has logits that nobody asked for", p)
		}
		toks, err := gather(ctx, m, p, inference.WithMaxTokens(1))
		if err != nil {
			return err
		}
		if len(toks) == 0 {
			continue // the model ends at once, its end token is not yielded
		}
		one, err := m.Classify(ctx, []string{p})
		if err != nil {
			return err
		}
		if len(one) != 1 || one[0].Token.ID != toks[0].ID {
			return fmt.Errorf("%q: classified as %v, generated as %v", p, one, toks[0])
		}
		if s.Steady && all[i].Token.ID != toks[0].ID {
			return fmt.Errorf("%q: classified beside others as %v, generated as %v", p, all[i].Token, toks[0])
		}
	}
	return nil
}

func logits(ctx context.Context, s Subject, m inference.TextModel) error {
	all, err := m.Classify(ctx, s.Prompts, inference.WithLogits())
	if err != nil {
		return err
	}
	for i, r := range all {
		if len(r.Logits) != m.Info().VocabSize {
			return fmt.Errorf("prompt %d: %d logits for a vocabulary of %d", i, len(r.Logits), m.Info().VocabSize)
		}
		best := 0
		for id, x := range r.Logits {
			if x != x {
				return fmt.Errorf("prompt %d: the logit of token %d is not a number", i, id)
			}
			if x > r.Logits[best] {
				best = id
			}
		}
		if r.Token.ID < 0 || int(r.Token.ID) >= len(r.Logits) || r.Logits[r.Token.ID] != r.Logits[best] {
			return fmt.Errorf("prompt %d: token %d was sampled at temperature 0, %d has the largest logit", i, r.Token.ID, best)
		}
	}
	return nil
}
