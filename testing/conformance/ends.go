package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

func loadChecks() []Check {
	return []Check{
		{Name: "the backend is available and named", Run: func(_ context.Context, s Subject, _ inference.TextModel) error {
			if s.Backend.Name() == "" || !s.Backend.Available() {
				return fmt.Errorf("name %q, available %v", s.Backend.Name(), s.Backend.Available())
			}
			return nil
		}},
		{Name: "the model is described", Run: func(_ context.Context, _ Subject, m inference.TextModel) error {
			info := m.Info()
			if m.ModelType() == "" || info.Architecture != m.ModelType() {
				return fmt.Errorf("model type %q, architecture %q", m.ModelType(), info.Architecture)
			}
			if info.VocabSize <= 0 || info.NumLayers <= 0 || info.HiddenSize <= 0 || info.QuantBits < 0 || info.QuantGroup < 0 {
				return fmt.Errorf("info %+v", info)
			}
			return nil
		}},
		{Name: "a missing model is an error", Run: func(_ context.Context, s Subject, _ inference.TextModel) error {
			return rejected(s, filepath.Join(filepath.Dir(s.Model), "there-is-no-such-model.gguf"))
		}},
		{Name: "a file that is no model is an error", Run: noModel},
	}
}

func rejected(s Subject, path string) error {
	m, err := s.Backend.LoadModel(path, s.Options...)
	if err == nil {
		return errors.Join(fmt.Errorf("%s was loaded", path), m.Close())
	}
	return nil // the refusal is the promise
}

func noModel(_ context.Context, s Subject, _ inference.TextModel) (err error) {
	dir, err := os.MkdirTemp("", "conformance")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "noise.gguf")
	if err := os.WriteFile(path, []byte("this is not a model"), 0o600); err != nil {
		return err
	}
	return rejected(s, path)
}

func endChecks() []Check {
	return []Check{
		{Name: "it ends at MaxTokens", Run: atLimit, Texts: true},
		{Name: "temperature 0 repeats itself", Run: deterministic, Texts: true},
		{Name: "texts are valid UTF-8", Run: validText, Texts: true},
		{Name: "a stop token ends it and is not yielded", Run: stopToken, Texts: true},
		{Name: "nil options are skipped", Run: func(ctx context.Context, s Subject, m inference.TextModel) error {
			toks, err := gather(ctx, m, s.Prompts[0], nil, inference.WithMaxTokens(2), nil)
			if err != nil || len(toks) == 0 || len(toks) > 2 {
				return fmt.Errorf("%d tokens, err %w", len(toks), orNil(err))
			}
			return nil
		}},
		{Name: "metrics speak of the last operation", Run: metrics},
		{
			Name: "chat answers and repeats itself", Run: chat, Texts: true,
			Needs: func(s Subject) bool { return s.Chat },
		},
	}
}

func atLimit(ctx context.Context, s Subject, m inference.TextModel) error {
	for _, n := range []int{1, 2, few} {
		for _, p := range s.Prompts {
			toks, err := gather(ctx, m, p, inference.WithMaxTokens(n))
			if err != nil {
				return fmt.Errorf("%q: %w", p, err)
			}
			if len(toks) == 0 {
				return fmt.Errorf("%q: %w", p, errNoTokens)
			}
			if len(toks) > n {
				return fmt.Errorf("%q: %d tokens with MaxTokens %d", p, len(toks), n)
			}
		}
	}
	return nil
}

func deterministic(ctx context.Context, s Subject, m inference.TextModel) error {
	for _, p := range s.Prompts {
		first, err := gather(ctx, m, p, inference.WithMaxTokens(few))
		if err != nil {
			return err
		}
		second, err := gather(ctx, m, p, inference.WithMaxTokens(few), inference.WithTemperature(0))
		if err != nil {
			return err
		}
		if err := same(second, first); err != nil {
			return fmt.Errorf("%q the second time: %w", p, err)
		}
	}
	return nil
}

func validText(ctx context.Context, s Subject, m inference.TextModel) error {
	for _, p := range append([]string{"😀😃😄😁😆 😀😃😄😁😆 😀😃", "日本語 中文 한국어 日本語 中文"}, s.Prompts...) {
		toks, err := gather(ctx, m, p, inference.WithMaxTokens(4*few))
		if err != nil {
			return fmt.Errorf("%q: %w", p, err)
		}
		if err := valid(toks); err != nil {
			return fmt.Errorf("%q: %w", p, err)
		}
	}
	return nil
}

// stopToken stops at each token of an unrestricted run.
func stopToken(ctx context.Context, s Subject, m inference.TextModel) error {
	for _, p := range s.Prompts[:2] {
		free, err := gather(ctx, m, p, inference.WithMaxTokens(few))
		if err != nil {
			return err
		}
		if len(free) == 0 {
			return errNoTokens
		}
		for i, t := range free {
			first := i
			for k := range free[:i] {
				if free[k].ID == t.ID {
					first = min(first, k)
				}
			}
			got, err := gather(ctx, m, p, inference.WithMaxTokens(few), inference.WithStopTokens(-7, t.ID))
			if err != nil {
				return fmt.Errorf("%q, stopping at %v: %w", p, t, err)
			}
			if err := same(got, free[:first]); err != nil {
				return fmt.Errorf("%q, stopping at %v: %w", p, t, err)
			}
		}
	}
	return nil
}

func metrics(ctx context.Context, s Subject, m inference.TextModel) error {
	toks, err := gather(ctx, m, s.Prompts[0], inference.WithMaxTokens(few))
	if err != nil {
		return err
	}
	x := m.Metrics()
	if x.PromptTokens <= 0 {
		return fmt.Errorf("%d prompt tokens: %+v", x.PromptTokens, x)
	}
	// The token that ended the model's turn may be counted or not.
	if x.GeneratedTokens != len(toks) && x.GeneratedTokens != len(toks)+1 {
		return fmt.Errorf("%d tokens generated, %d yielded: %+v", x.GeneratedTokens, len(toks), x)
	}
	if x.TotalDuration <= 0 || x.PrefillDuration < 0 || x.DecodeDuration < 0 || x.PrefillDuration+x.DecodeDuration > 2*x.TotalDuration {
		return fmt.Errorf("durations: %+v", x)
	}
	if x.PrefillTokensPerSec < 0 || x.DecodeTokensPerSec < 0 || len(toks) > 1 && x.DecodeTokensPerSec == 0 {
		return fmt.Errorf("rates: %+v", x)
	}
	if x.ActiveMemoryBytes > x.PeakMemoryBytes {
		return fmt.Errorf("more memory active than at the peak: %+v", x)
	}
	if _, err := gather(ctx, m, s.Prompts[1], inference.WithMaxTokens(1)); err != nil {
		return err
	}
	if y := m.Metrics(); y.GeneratedTokens > 2 {
		return fmt.Errorf("after a run of one token: %+v", y)
	}
	return nil
}

func chat(ctx context.Context, _ Subject, m inference.TextModel) error {
	messages := []inference.Message{
		{Role: "system", Content: "Answer in one word."},
		{Role: "user", Content: "What is the colour of the sky?"},
		{Role: "assistant", Content: "Blue."},
		{Role: "user", Content: "And of grass?"},
	}
	var runs [2][]inference.Token
	for i := range runs {
		for t := range m.Chat(ctx, messages, inference.WithMaxTokens(few)) {
			runs[i] = append(runs[i], t)
		}
		if err := m.Err(); err != nil {
			return err
		}
		if len(runs[i]) == 0 {
			return errNoTokens
		}
		if err := valid(runs[i]); err != nil {
			return err
		}
	}
	return same(runs[1], runs[0])
}
