package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/testing/goroutines"
)

func misuseChecks() []Check {
	return []Check{
		{Name: "a prompt longer than the context is an error", Run: func(ctx context.Context, s Subject, m inference.TextModel) error {
			toks, err := gather(ctx, m, s.TooLong, inference.WithMaxTokens(1))
			if err == nil || len(toks) > 0 {
				return fmt.Errorf("%d tokens, err %w", len(toks), orNil(err))
			}
			if _, err = gather(ctx, m, s.Prompts[0], inference.WithMaxTokens(1)); err != nil {
				return fmt.Errorf("the run after it: %w", err)
			}
			return nil
		}},
		{Name: "one bad prompt does not spoil a batch", Run: func(ctx context.Context, s Subject, m inference.TextModel) error {
			out, err := m.BatchGenerate(ctx, []string{s.Prompts[0], s.TooLong, s.Prompts[1]}, inference.WithMaxTokens(2))
			if err != nil {
				return err
			}
			if len(out) != 3 || out[0].Err != nil || out[1].Err == nil || out[2].Err != nil || len(out[2].Tokens) == 0 {
				return fmt.Errorf("results %+v", out)
			}
			return nil
		}},
		{Name: "a chat without messages is an error", Run: func(ctx context.Context, _ Subject, m inference.TextModel) error {
			for t := range m.Chat(ctx, nil, inference.WithMaxTokens(2)) {
				return fmt.Errorf("it yields %v", t)
			}
			if m.Err() == nil {
				return errors.New("err is nil")
			}
			return nil
		}},
		{Name: "an empty prompt does no harm", Run: func(ctx context.Context, s Subject, m inference.TextModel) error {
			toks, err := gather(ctx, m, "", inference.WithMaxTokens(2))
			if err == nil && len(toks) > 2 {
				return fmt.Errorf("%d tokens", len(toks))
			}
			_, err = gather(ctx, m, s.Prompts[0], inference.WithMaxTokens(1))
			return err
		}},
	}
}

func closeChecks() []Check {
	return []Check{
		{Name: "closing twice is fine, and using it then an error", Run: closeTwice},
		{Name: "closing ends what runs", Run: closeRunning},
		{Name: "a loop may close its own model", Run: closeInside},
		{Name: "closing does not wait for who reads a loop", Run: closeStalled},
		{Name: "nothing is left behind", Run: leak},
	}
}

func closeTwice(ctx context.Context, s Subject, _ inference.TextModel) error {
	m, err := s.Load()
	if err != nil {
		return err
	}
	for range 2 {
		if err := m.Close(); err != nil {
			return fmt.Errorf("close: %w", err)
		}
	}
	if toks, err := gather(ctx, m, s.Prompts[0]); err == nil || len(toks) > 0 {
		return fmt.Errorf("generate after close: %d tokens, err %w", len(toks), orNil(err))
	}
	for range m.Chat(ctx, []inference.Message{{Role: "user", Content: "hi"}}) {
		return errors.New("chat after close yields tokens")
	}
	if m.Err() == nil {
		return errors.New("chat after close: err is nil")
	}
	if _, err := m.Classify(ctx, s.Prompts); err == nil {
		return errors.New("classify after close: err is nil")
	}
	out, err := m.BatchGenerate(ctx, s.Prompts)
	for _, r := range out {
		err = errors.Join(err, r.Err)
	}
	if err == nil {
		return errors.New("batch after close: err is nil")
	}
	return nil
}

// closeRunning closes the model during a generation, from another goroutine, as a
// signal handler would.
func closeRunning(ctx context.Context, s Subject, _ inference.TextModel) error {
	m, err := s.Load()
	if err != nil {
		return err
	}
	closed := make(chan error, 1)
	n := 0
	for range m.Generate(ctx, s.Prompts[0], inference.WithMaxTokens(endless)) {
		if n++; n == 2 {
			go func() { closed <- m.Close() }()
		}
	}
	if n < 2 {
		return errors.Join(errNoTokens, m.Err(), m.Close())
	}
	if err := <-closed; err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if m.Err() == nil {
		return fmt.Errorf("close ended the loop after %d tokens, yet err is nil", n)
	}
	return nil
}

// closeInside closes the model in the body of its own loop, where the reader itself
// waits for Close. A model that waits for its readers still runs at the deadline of
// Verify, or gives up after a timeout of its own: load the model with a timeout
// above Patience to detect that.
func closeInside(ctx context.Context, s Subject, _ inference.TextModel) error {
	m, err := s.Load()
	if err != nil {
		return err
	}
	n := 0
	for range m.Generate(ctx, s.Prompts[0], inference.WithMaxTokens(endless)) {
		switch n++; n {
		case 1:
		case 2:
			if err := m.Close(); err != nil {
				return fmt.Errorf("close: %w", err)
			}
		default:
			return errors.New("a token came after close had returned")
		}
	}
	switch {
	case n < 2:
		return errors.Join(errNoTokens, m.Err(), m.Close())
	case ctx.Err() != nil:
		return fmt.Errorf("close did not return in time: %w", ctx.Err())
	case m.Err() == nil:
		return errors.New("close ended the loop, yet err is nil")
	}
	return nil
}

// closeStalled closes the model while another goroutine is busy with a token. The
// other goroutine continues only after Close has returned.
func closeStalled(ctx context.Context, s Subject, _ inference.TextModel) error {
	m, err := s.Load()
	if err != nil {
		return err
	}
	busy, closed, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
	n := 0
	go func() {
		defer close(over)
		for range m.Generate(ctx, s.Prompts[0], inference.WithMaxTokens(endless)) {
			if n++; n == 2 {
				close(busy)
				<-closed
			}
		}
	}()
	select {
	case <-busy:
	case <-over:
		return errors.Join(errNoTokens, m.Err(), m.Close())
	}
	err = m.Close()
	late := ctx.Err()
	close(closed)
	<-over
	switch {
	case err != nil:
		return fmt.Errorf("close: %w", err)
	case late != nil:
		return fmt.Errorf("close did not return in time: %w", late)
	case m.Err() == nil:
		return fmt.Errorf("close ended the loop after %d tokens, yet err is nil", n)
	}
	return nil
}

// releaseTime is how long the goroutines of a closed model may take to end.
const releaseTime = 4 * time.Second

// leak loads, uses and closes models, and compares the goroutines that remain with
// those before.
func leak(ctx context.Context, s Subject, _ inference.TextModel) error {
	use := func() error {
		m, err := s.Load()
		if err != nil {
			return err
		}
		_, err = gather(ctx, m, s.Prompts[0], inference.WithMaxTokens(2))
		for range m.Generate(ctx, s.Prompts[1], inference.WithMaxTokens(100)) {
			break
		}
		return errors.Join(err, m.Close())
	}
	if err := use(); err != nil { // what is made once may stay
		return err
	}
	before := goroutines.Running()
	for range 3 {
		if err := use(); err != nil {
			return err
		}
	}
	limit := time.After(releaseTime)
	for {
		more := goroutines.Running().Since(before)
		if len(more) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return fmt.Errorf("after three models were loaded, used and closed there are %s", strings.Join(more, "; "))
		case <-time.After(10 * time.Millisecond):
		}
	}
}
