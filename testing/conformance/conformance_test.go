package conformance

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

func subject(t *testing.T, b inference.Backend) Subject {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fake.gguf")
	if err := os.WriteFile(path, []byte("GGUF"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Subject{
		Backend: b, Model: path, Logits: true, Chat: true, Steady: true,
		TooLong: strings.Repeat("word ", 2000), Patience: 2 * time.Minute,
	}
}

func TestCorrectBackendPasses(t *testing.T) { Run(t, subject(t, sound{})) }

// mutant changes the behaviour of one method of a model.
type mutant struct {
	inference.TextModel
	generate func(inference.TextModel, context.Context, string, []inference.GenerateOption) iter.Seq[inference.Token]
	batch    func(inference.TextModel, context.Context, []string, []inference.GenerateOption) ([]inference.BatchResult, error)
	classify func(inference.TextModel, context.Context, []string, []inference.GenerateOption) ([]inference.ClassifyResult, error)
	err      func(error) error
	metrics  func(inference.GenerateMetrics) inference.GenerateMetrics
	info     func(inference.ModelInfo) inference.ModelInfo
	close    func(inference.TextModel) error
}

func (m mutant) Generate(ctx context.Context, p string, o ...inference.GenerateOption) iter.Seq[inference.Token] {
	if m.generate != nil {
		return m.generate(m.TextModel, ctx, p, o)
	}
	return m.TextModel.Generate(ctx, p, o...)
}

func (m mutant) BatchGenerate(ctx context.Context, p []string, o ...inference.GenerateOption) ([]inference.BatchResult, error) {
	if m.batch != nil {
		return m.batch(m.TextModel, ctx, p, o)
	}
	return m.TextModel.BatchGenerate(ctx, p, o...)
}

func (m mutant) Classify(ctx context.Context, p []string, o ...inference.GenerateOption) ([]inference.ClassifyResult, error) {
	if m.classify != nil {
		return m.classify(m.TextModel, ctx, p, o)
	}
	return m.TextModel.Classify(ctx, p, o...)
}

func (m mutant) Err() error {
	if m.err != nil {
		return m.err(m.TextModel.Err())
	}
	return m.TextModel.Err()
}

func (m mutant) Metrics() inference.GenerateMetrics {
	if m.metrics != nil {
		return m.metrics(m.TextModel.Metrics())
	}
	return m.TextModel.Metrics()
}

func (m mutant) Info() inference.ModelInfo {
	if m.info != nil {
		return m.info(m.TextModel.Info())
	}
	return m.TextModel.Info()
}

func (m mutant) Close() error {
	if m.close != nil {
		return m.close(m.TextModel)
	}
	return m.TextModel.Close()
}

// each changes every token that a model yields.
func each(f func(inference.Token) inference.Token) mutant {
	return mutant{generate: func(m inference.TextModel, ctx context.Context, p string, o []inference.GenerateOption) iter.Seq[inference.Token] {
		return func(yield func(inference.Token) bool) {
			for t := range m.Generate(ctx, p, o...) {
				if !yield(f(t)) {
					return
				}
			}
		}
	}}
}

// with adds an option to generations.
func with(extra ...inference.GenerateOption) mutant {
	return mutant{generate: func(m inference.TextModel, ctx context.Context, p string, o []inference.GenerateOption) iter.Seq[inference.Token] {
		return m.Generate(ctx, p, append(slices.Clone(o), extra...)...)
	}}
}

// TestMutantsAreDetected breaks one promise at a time; its check must fail.
func TestMutantsAreDetected(t *testing.T) {
	count := 0
	for _, tc := range []struct {
		name, check string
		says        string // what the check finds
		m           mutant
	}{
		{"ignores MaxTokens", "it ends at MaxTokens", "9 tokens with MaxTokens 1", with(inference.WithMaxTokens(9))},
		{"is never greedy", "temperature 0 repeats itself", "the second time", with(inference.WithTemperature(1))},
		{"ignores stop tokens", "a stop token ends it and is not yielded", "stopping at", with(inference.WithStopTokens())},
		{"cuts runes", "texts are valid UTF-8", "not valid UTF-8", each(func(t inference.Token) inference.Token {
			return inference.Token{ID: t.ID, Text: t.Text + "\xf0\x9f"}
		})},
		{"has no ids", "texts are valid UTF-8", "has the id -1", each(func(t inference.Token) inference.Token { return inference.Token{ID: -1, Text: t.Text} })},
		{"counts double", "metrics speak of the last operation", "16 tokens generated, 8 yielded", mutant{metrics: func(x inference.GenerateMetrics) inference.GenerateMetrics {
			x.GeneratedTokens *= 2
			return x
		}}},
		{"has no metrics", "metrics speak of the last operation", "0 prompt tokens", mutant{metrics: func(inference.GenerateMetrics) inference.GenerateMetrics {
			return inference.GenerateMetrics{}
		}}},
		{"has no vocabulary", "the model is described", "VocabSize:0", mutant{info: func(i inference.ModelInfo) inference.ModelInfo {
			i.VocabSize = 0
			return i
		}}},
		{"never has an error", "the end of the context ends it", "err is nil, want context.Canceled", mutant{err: func(error) error { return nil }}},
		{"never has an error, again", "a chat without messages is an error", "err is nil", mutant{err: func(error) error { return nil }}},
		{"always has an error", "leaving the loop is no failure and frees the slot", "after leaving the loop: stale", mutant{err: func(error) error { return errors.New("stale") }}},
		{"ignores the context", "a context that is over yields nothing", "want none and context.Canceled", mutant{
			generate: func(m inference.TextModel, ctx context.Context, p string, o []inference.GenerateOption) iter.Seq[inference.Token] {
				return m.Generate(context.WithoutCancel(ctx), p, o...)
			},
		}},
		{"takes an option that is nil for the end", "nil options are skipped", "0 tokens, err nil", mutant{
			generate: func(m inference.TextModel, ctx context.Context, p string, o []inference.GenerateOption) iter.Seq[inference.Token] {
				if slices.ContainsFunc(o, func(g inference.GenerateOption) bool { return g == nil }) {
					o = append(o, inference.WithMaxTokens(0))
				}
				return m.Generate(ctx, p, o...)
			},
		}},
		{"returns a batch backwards", "a batch keeps the order of its prompts", "in the batch, compared with alone", mutant{
			batch: func(m inference.TextModel, ctx context.Context, p []string, o []inference.GenerateOption) ([]inference.BatchResult, error) {
				out, err := m.BatchGenerate(ctx, p, o...)
				slices.Reverse(out)
				return out, err
			},
		}},
		{"fails a whole batch for one prompt", "one bad prompt does not spoil a batch", "exceeds the available context size", mutant{
			batch: func(m inference.TextModel, ctx context.Context, p []string, o []inference.GenerateOption) ([]inference.BatchResult, error) {
				out, err := m.BatchGenerate(ctx, p, o...)
				for _, r := range out {
					err = errors.Join(err, r.Err)
				}
				return out, err
			},
		}},
		{"goes on with a cancelled batch", "the end of the context stops a batch", "batch: err nil, want context.Canceled", mutant{
			batch: func(m inference.TextModel, ctx context.Context, p []string, _ []inference.GenerateOption) ([]inference.BatchResult, error) {
				return m.BatchGenerate(context.WithoutCancel(ctx), p, inference.WithMaxTokens(2))
			},
		}},
		{"classifies at random", "classify samples what generate would", "classified as", mutant{
			classify: func(m inference.TextModel, ctx context.Context, p []string, o []inference.GenerateOption) ([]inference.ClassifyResult, error) {
				out, err := m.Classify(ctx, p, o...)
				for i := range out {
					out[i].Token.ID++
				}
				return out, err
			},
		}},
		{"gives the logits of others", "logits span the vocabulary and agree with the token", "has the largest logit", mutant{
			classify: func(m inference.TextModel, ctx context.Context, p []string, o []inference.GenerateOption) ([]inference.ClassifyResult, error) {
				out, err := m.Classify(ctx, p, o...)
				for i := range out {
					slices.Reverse(out[i].Logits)
				}
				return out, err
			},
		}},
		{"gives few logits", "logits span the vocabulary and agree with the token", "5 logits for a vocabulary of", mutant{
			classify: func(m inference.TextModel, ctx context.Context, p []string, o []inference.GenerateOption) ([]inference.ClassifyResult, error) {
				out, err := m.Classify(ctx, p, o...)
				for i := range out {
					out[i].Logits = out[i].Logits[:5]
				}
				return out, err
			},
		}},
		{"does not like to be closed twice", "closing twice is fine, and using it then an error", "close: already closed", mutant{
			close: func(m inference.TextModel) error { return errors.Join(m.Close(), errors.New("already closed")) },
		}},
		{"does not close", "closing twice is fine, and using it then an error", "generate after close", mutant{close: func(inference.TextModel) error { return nil }}},
		{"yields what it has when it is closed", "a loop may close its own model", "a token came after close", mutant{
			generate: func(m inference.TextModel, ctx context.Context, p string, _ []inference.GenerateOption) iter.Seq[inference.Token] {
				var have []inference.Token
				for t := range m.Generate(ctx, p, inference.WithMaxTokens(few)) {
					have = append(have, t)
				}
				return slices.Values(have)
			},
		}},
		{"leaks", "nothing is left behind", "goroutines of ", mutant{close: func(m inference.TextModel) error {
			go func() { <-t.Context().Done() }()
			return m.Close()
		}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			found(t, tc.check, tc.says, subject(t, sound{mutate: func(m inference.TextModel) inference.TextModel {
				tc.m.TextModel = m
				return tc.m
			}}))
		})
		count++
	}
	if count < 20 {
		t.Errorf("only %d mutants", count)
	}
}

// TestDetectsSlotsThatStayBusy has a mutant that only a timeout detects: generation
// continues after the reader has left, until no slot is free.
func TestDetectsSlotsThatStayBusy(t *testing.T) {
	s := subject(t, sound{endless: true, mutate: func(m inference.TextModel) inference.TextModel {
		return mutant{TextModel: m, generate: func(m inference.TextModel, ctx context.Context, p string, o []inference.GenerateOption) iter.Seq[inference.Token] {
			return generateForever(ctx, m, p, o)
		}}
	}})
	s.Patience = time.Second
	found(t, "leaving the loop is no failure and frees the slot", "the run after them: 0 tokens", s)
}

// TestDetectsCloseThatWaits has models whose Close waits for a reader, forever or
// until after the deadline of the check.
func TestDetectsCloseThatWaits(t *testing.T) {
	for _, c := range closeChecks() {
		if c.Name != "a loop may close its own model" && c.Name != "closing does not wait for who reads a loop" {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			waiting := subject(t, sound{endless: true, mutate: func(m inference.TextModel) inference.TextModel {
				return mutant{TextModel: m, close: func(m inference.TextModel) error {
					cancel()
					return m.Close()
				}}
			}})
			if err := c.Run(ctx, waiting.withDefaults(), nil); err == nil || !strings.Contains(err.Error(), "close did not return in time") {
				t.Errorf("one that gives up waiting: %v", err)
			}
			stuck := subject(t, sound{endless: true, mutate: func(m inference.TextModel) inference.TextModel {
				t.Cleanup(func() { _ = m.Close() })
				return mutant{TextModel: m, close: func(inference.TextModel) error { select {} }}
			}})
			stuck.Patience = 100 * time.Millisecond
			if err := stuck.Verify(t.Context(), c, nil); err == nil || !strings.Contains(err.Error(), "it still runs") {
				t.Errorf("one that waits for ever: %v", err)
			}
		})
	}
}

// generateForever generates in the background until the model is closed.
func generateForever(ctx context.Context, m inference.TextModel, p string, o []inference.GenerateOption) iter.Seq[inference.Token] {
	return func(yield func(inference.Token) bool) {
		tokens, left := make(chan inference.Token), make(chan struct{})
		defer close(left)
		go func() {
			defer close(tokens)
			for t := range m.Generate(context.WithoutCancel(ctx), p, o...) {
				select {
				case tokens <- t:
				case <-left:
				}
			}
		}()
		for {
			select {
			case t, ok := <-tokens:
				if !ok || !yield(t) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// found runs the check of the promise that a model breaks.
func found(t *testing.T, check, says string, s Subject) {
	t.Helper()
	at := slices.IndexFunc(Checks(), func(c Check) bool { return c.Name == check })
	if at < 0 {
		t.Fatalf("there is no check %q", check)
	}
	m, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	err = s.Verify(t.Context(), Checks()[at], m)
	if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "%!") {
		t.Errorf("%q says %v, want %q", check, err, says)
	}
	whole, ok := m.(mutant)
	if !ok {
		t.Fatalf("a model of type %T", m)
	}
	if err := whole.TextModel.Close(); err != nil {
		t.Error(err)
	}
}

func TestDetectsBackendThatLoadsAnything(t *testing.T) {
	s := subject(t, sound{loadAnything: true})
	for _, c := range loadChecks()[2:] {
		if err := s.Verify(t.Context(), c, nil); err == nil || !strings.Contains(err.Error(), "was loaded") {
			t.Errorf("%q: %v", c.Name, err)
		}
	}
}

// TestRequirements checks that Run skips checks of features that a subject lacks.
func TestRequirements(t *testing.T) {
	names := func(s Subject) (out []string) {
		for _, c := range s.checks() {
			out = append(out, c.Name)
		}
		return out
	}
	all := names(Subject{Logits: true, Chat: true})
	if len(all) != len(Checks()) {
		t.Errorf("all: %q", all)
	}
	for name, s := range map[string]Subject{
		"chat answers and repeats itself":                     {Logits: true},
		"logits span the vocabulary and agree with the token": {Chat: true},
	} {
		if got := names(s); slices.Contains(got, name) || len(got) != len(all)-1 {
			t.Errorf("without what %q needs: %q", name, got)
		}
	}
	texts := names(Subject{Logits: true, Chat: true, Texts: true})
	if !slices.Contains(texts, "texts are valid UTF-8") || slices.Contains(texts, "nothing is left behind") {
		t.Errorf("of texts: %q", texts)
	}
}

// TestVerifySurvivesHangingBackend checks that a check that hangs or panics is a failure.
func TestVerifySurvivesHangingBackend(t *testing.T) {
	s := Subject{Patience: 20 * time.Millisecond}
	hang := Check{Run: func(context.Context, Subject, inference.TextModel) error { select {} }}
	if err := s.Verify(t.Context(), hang, nil); err == nil || !strings.Contains(err.Error(), "still runs") {
		t.Errorf("hanging: %v", err)
	}
	panics := Check{Run: func(context.Context, Subject, inference.TextModel) error { panic("boom") }}
	if err := s.Verify(t.Context(), panics, nil); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("panicking: %v", err)
	}
}
