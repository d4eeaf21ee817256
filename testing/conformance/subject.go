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

// Subject is a backend under test.
type Subject struct {
	// Backend loads Model with Options.
	Backend inference.Backend
	Model   string
	Options []inference.LoadOption
	// Prompts lists at least three different prompts. Each must produce at least eight
	// tokens at temperature 0. Nil means short English prompts.
	Prompts []string
	// TooLong is a prompt that does not fit into the context; empty means a text of a
	// million words.
	TooLong string
	// Logits means that the backend can return logits.
	Logits bool
	// Chat is false for a model without a chat template.
	Chat bool
	// Steady means that a prompt produces the same tokens alone and in a batch. Most
	// kernels sum in a different order for a different batch size, which can change
	// the result of a near tie.
	Steady bool
	// Texts limits the checks to those whose result depends on the tokenizer, for a model
	// that differs in it from one that passes all checks.
	Texts bool
	// Patience is the time limit of a check; 0 means a minute.
	Patience time.Duration
}

// Check is one promise.
type Check struct {
	Name string
	// Run returns nil if the promise is kept. The model is loaded and shared with other
	// checks; a check that closes a model loads its own.
	Run func(ctx context.Context, s Subject, m inference.TextModel) error
	// Needs reports whether the check applies to a subject; nil means always.
	Needs func(Subject) bool
	// Texts means that the result depends on the tokenizer.
	Texts bool
}

// Checks returns the checks of all promises, the simple ones first.
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

// checks returns the checks that apply to the subject.
func (s Subject) checks() []Check {
	return slices.DeleteFunc(Checks(), func(c Check) bool { return c.Needs != nil && !c.Needs(s) || s.Texts && !c.Texts })
}

// Verify runs one check with a context that ends after Subject.Patience. A check
// that does not return within another quarter of Patience fails: nothing may block
// forever.
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

// Load loads the model again.
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

// few is the number of tokens that most checks request.
const few = 8

// gather runs a generation and returns its tokens and its error.
func gather(ctx context.Context, m inference.TextModel, prompt string, opts ...inference.GenerateOption) ([]inference.Token, error) {
	var out []inference.Token
	for t := range m.Generate(ctx, prompt, opts...) {
		out = append(out, t)
	}
	return out, m.Err()
}

// valid returns an error for invalid token texts.
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

// same returns an error that describes how two generations differ.
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
