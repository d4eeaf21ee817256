package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

const (
	// many is more than the number of slots of any model under test.
	many = 20
	// endless is a limit that no generation reaches during a check.
	endless = 1_000_000
)

func leaveChecks() []Check {
	return []Check{
		{Name: "leaving the loop is no failure and frees the slot", Run: breakOut},
		{Name: "the end of the context ends it", Run: cancelled},
		{Name: "a context that is over yields nothing", Run: overBefore},
		{Name: "a failure is forgotten after a success", Run: func(ctx context.Context, s Subject, m inference.TextModel) error {
			if err := overBefore(ctx, s, m); err != nil {
				return err
			}
			_, err := gather(ctx, m, s.Prompts[0], inference.WithMaxTokens(1))
			return err
		}},
		{Name: "many at once all end", Run: concurrent},
	}
}

// breakOut leaves more loops than there are slots: a slot that stays busy would
// block the last run.
func breakOut(ctx context.Context, s Subject, m inference.TextModel) error {
	for range many {
		for range m.Generate(ctx, s.Prompts[0], inference.WithMaxTokens(endless)) {
			break
		}
		if err := m.Err(); err != nil {
			return fmt.Errorf("after leaving the loop: %w", err)
		}
	}
	toks, err := gather(ctx, m, s.Prompts[0], inference.WithMaxTokens(2))
	if err != nil || len(toks) == 0 {
		return fmt.Errorf("the run after them: %d tokens, err %w", len(toks), orNil(err))
	}
	return nil
}

func cancelled(ctx context.Context, s Subject, m inference.TextModel) error {
	for range many {
		if err := cancelOnce(ctx, s, m); err != nil {
			return err
		}
	}
	_, err := gather(ctx, m, s.Prompts[0], inference.WithMaxTokens(2))
	return err
}

func cancelOnce(ctx context.Context, s Subject, m inference.TextModel) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	after := 0
	for range m.Generate(inner, s.Prompts[0], inference.WithMaxTokens(endless)) {
		if inner.Err() != nil {
			after++
		}
		cancel()
	}
	if after > 1 {
		return fmt.Errorf("%d tokens after the context ended", after)
	}
	if err := m.Err(); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("err is %w, want context.Canceled", orNil(err))
	}
	return nil
}

// orNil makes a nil error printable.
func orNil(err error) error {
	if err == nil {
		return errors.New("nil")
	}
	return err
}

func overBefore(ctx context.Context, s Subject, m inference.TextModel) error {
	inner, cancel := context.WithCancel(ctx)
	cancel()
	toks, err := gather(inner, m, s.Prompts[0])
	if len(toks) > 0 || !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%d tokens, err %w; want none and context.Canceled", len(toks), orNil(err))
	}
	return nil
}

func concurrent(ctx context.Context, s Subject, m inference.TextModel) error {
	alone := make([][]inference.Token, len(s.Prompts))
	for i, p := range s.Prompts {
		var err error
		if alone[i], err = gather(ctx, m, p, inference.WithMaxTokens(few)); err != nil {
			return err
		}
	}
	errs := make([]error, many)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			n := i % len(s.Prompts)
			var got []inference.Token
			for t := range m.Generate(ctx, s.Prompts[n], inference.WithMaxTokens(few)) {
				got = append(got, t)
			}
			switch {
			case len(got) == 0:
				errs[i] = fmt.Errorf("%q beside others: %w", s.Prompts[n], errNoTokens)
			case len(got) > few:
				errs[i] = fmt.Errorf("%q beside others: %d tokens", s.Prompts[n], len(got))
			case s.Steady:
				if err := same(got, alone[n]); err != nil {
					errs[i] = fmt.Errorf("%q beside others: %w", s.Prompts[n], err)
				}
			}
		})
	}
	wg.Wait()
	if err := m.Err(); err != nil {
		errs = append(errs, fmt.Errorf("after all ended: %w", err))
	}
	return errors.Join(errs...)
}
