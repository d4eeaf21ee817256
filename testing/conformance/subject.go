package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// Subject is what is put through the checks.
type Subject struct {
	// Backend loads Model with Options.
	Backend inference.Backend
	Model   string
	Options []inference.LoadOption
	// Prompts are at least three different ones, each good for eight tokens at
	// temperature 0; nil takes short English ones.
	Prompts []string
	// TooLong is a prompt that does not fit the context; empty leaves the check of
	// it with a text of a million words.
	TooLong string
	// Logits is true when the backend can return them.
	Logits bool
	// Chat is false for a model without a chat template.
	Chat bool
	// Steady is true when a prompt gives the same tokens alone and beside others.
	// Most kernels sum in another order for another batch size, so that a near tie
	// may fall either way.
	Steady bool
	// Patience is how long a check may take; a minute when 0.
	Patience time.Duration
}

// Check is one promise.
type Check struct {
	Name string
	// Run returns nil when the promise is kept. The model is loaded and shared
	// with other checks; a check that must close one loads its own.
	Run func(ctx context.Context, s Subject, m inference.TextModel) error
	// Needs reports whether the check applies; nil for always.
	Needs func(Subject) bool
}

// Checks are all promises, the plain ones first.
func Checks() []Check {
	var all []Check
	for _, group := range [][]Check{loadChecks(), endChecks(), leaveChecks(), batchChecks(), misuseChecks(), closeChecks()} {
		all = append(all, group...)
	}
	return all
}

// Run loads the subject's model and runs every check that applies to it.
func Run(t *testing.T, s Subject) {
	t.Helper()
	s = s.withDefaults()
	m, err := s.Load()
	if err != nil {
		t.Fatalf("loading %s: %v", s.Model, err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("closing the model: %v", err)
		}
	})
	for _, c := range s.checks() {
		t.Run(c.Name, func(t *testing.T) {
			if err := s.Verify(t.Context(), c, m); err != nil {
				t.Error(err)
			}
		})
	}
}

// checks are those that apply to the subject.
func (s Subject) checks() []Check {
	return slices.DeleteFunc(Checks(), func(c Check) bool { return c.Needs != nil && !c.Needs(s) })
}

// Verify runs one check with a context that ends with the subject's patience. A
// check that does not come back within another quarter of it is itself a broken
// promise: nothing may block for ever.
func (s Subject) Verify(ctx context.Context, c Check, m inference.TextModel) error {
	s = s.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, s.Patience)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("panic: %v", p)
			}
		}()
		done <- c.Run(ctx, s, m)
	}()
	limit := s.Patience + s.Patience/4
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return fmt.Errorf("it still runs after %v", limit)
	}
}

// Load loads the model once more.
func (s Subject) Load() (inference.TextModel, error) {
	return s.Backend.LoadModel(s.Model, s.Options...)
}

func (s Subject) withDefaults() Subject {
	if len(s.Prompts) < 3 {
		s.Prompts = []string{"Once upon a time", "The capital of France is", "1, 2, 3, 4,", "My favourite colour is"}
	}
	if s.TooLong == "" {
		s.TooLong = strings.Repeat("word ", 1_000_000)
	}
	if s.Patience == 0 {
		s.Patience = time.Minute
	}
	return s
}

// few is how many tokens most checks ask for.
const few = 8

// gather runs a generation and returns its tokens and its error.
func gather(ctx context.Context, m inference.TextModel, prompt string, opts ...inference.GenerateOption) ([]inference.Token, error) {
	var out []inference.Token
	for t := range m.Generate(ctx, prompt, opts...) {
		out = append(out, t)
	}
	return out, m.Err()
}

// valid says what is wrong with the texts of tokens.
func valid(toks []inference.Token) error {
	for i, t := range toks {
		if !utf8.ValidString(t.Text) {
			return fmt.Errorf("token %d (id %d) has the text %q, which is not valid UTF-8", i, t.ID, t.Text)
		}
		if t.ID < 0 {
			return fmt.Errorf("token %d has the id %d", i, t.ID)
		}
	}
	return nil
}

// same says how two generations differ.
func same(got, want []inference.Token) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d tokens %v, not %d %v", len(got), got, len(want), want)
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("token %d is %v, not %v", i, got[i], want[i])
		}
	}
	return nil
}

var errNoTokens = errors.New("no tokens came; give prompts that the model goes on with")
