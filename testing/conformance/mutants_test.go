package conformance

import (
	"context"
	"iter"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// chatter is a mutant of Chat and ModelType.
type chatter struct {
	inference.TextModel
	chat func(inference.TextModel, context.Context, []inference.Message, []inference.GenerateOption) iter.Seq[inference.Token]
	kind string
}

func (m chatter) Chat(ctx context.Context, msgs []inference.Message, o ...inference.GenerateOption) iter.Seq[inference.Token] {
	if m.chat != nil {
		return m.chat(m.TextModel, ctx, msgs, o)
	}
	return m.TextModel.Chat(ctx, msgs, o...)
}

func (m chatter) ModelType() string {
	if m.kind != "" {
		return m.kind
	}
	return m.TextModel.ModelType()
}

// chatting changes the behaviour of Chat.
func chatting(f chats) mutant { return mutant{TextModel: chatter{chat: f}} }

type chats = func(m inference.TextModel, ctx context.Context, msgs []inference.Message, o []inference.GenerateOption) iter.Seq[inference.Token]

// measuring changes the metrics of a model.
func measuring(f func(*inference.GenerateMetrics)) mutant {
	return mutant{metrics: func(x inference.GenerateMetrics) inference.GenerateMetrics {
		f(&x)
		return x
	}}
}

// classifying changes the results of Classify.
func classifying(f func([]inference.ClassifyResult) []inference.ClassifyResult) mutant {
	return mutant{classify: func(m inference.TextModel, ctx context.Context, p []string, o []inference.GenerateOption) ([]inference.ClassifyResult, error) {
		out, err := m.Classify(ctx, p, o...)
		return f(out), err
	}}
}

// TestSingleConditionMutantsAreDetected breaks one condition of a check that has
// several, so that a condition that is removed from the check is noticed.
func TestSingleConditionMutantsAreDetected(t *testing.T) {
	silent := func(inference.TextModel, context.Context, string, []inference.GenerateOption) iter.Seq[inference.Token] {
		return func(func(inference.Token) bool) {}
	}
	const (
		limit   = "it ends at MaxTokens"
		numbers = "metrics speak of the last operation"
		repeats = "chat answers and repeats itself"
		beside  = "many at once all end"
		scores  = "logits span the vocabulary and agree with the token"
		sorts   = "classify samples what generate would"
	)
	var turn atomic.Int32
	for _, tc := range []struct {
		name, check, says string
		m                 mutant
	}{
		{"says nothing", limit, "no tokens came", mutant{generate: silent}},
		{"says nothing beside others", beside, "no tokens came", mutant{generate: silent}},
		{"takes no time", numbers, "durations", measuring(func(x *inference.GenerateMetrics) { x.TotalDuration = 0 })},
		{"reads in less than no time", numbers, "durations", measuring(func(x *inference.GenerateMetrics) { x.PrefillDuration = -1 })},
		{"writes in less than no time", numbers, "durations", measuring(func(x *inference.GenerateMetrics) { x.DecodeDuration = -1 })},
		{"takes longer than it took", numbers, "durations", measuring(func(x *inference.GenerateMetrics) { x.DecodeDuration = 3 * x.TotalDuration })},
		{"reads backwards", numbers, "rates", measuring(func(x *inference.GenerateMetrics) { x.PrefillTokensPerSec = -1 })},
		{"writes backwards", numbers, "rates", measuring(func(x *inference.GenerateMetrics) { x.DecodeTokensPerSec = -1 })},
		{"writes at no rate", numbers, "rates", measuring(func(x *inference.GenerateMetrics) { x.DecodeTokensPerSec = 0 })},
		{"was never so small", numbers, "more memory active", measuring(func(x *inference.GenerateMetrics) { x.ActiveMemoryBytes = x.PeakMemoryBytes + 1 })},
		{"forgets a prompt", "a batch keeps the order of its prompts", "results for 20 prompts", mutant{
			batch: func(m inference.TextModel, ctx context.Context, p []string, o []inference.GenerateOption) ([]inference.BatchResult, error) {
				out, err := m.BatchGenerate(ctx, p, o...)
				return out[:max(0, len(out)-1)], err
			},
		}},
		{"forgets to classify one", sorts, "results for 4 prompts", classifying(func(out []inference.ClassifyResult) []inference.ClassifyResult { return out[:max(0, len(out)-1)] })},
		{"gives logits unasked", sorts, "logits that nobody asked for", classifying(func(out []inference.ClassifyResult) []inference.ClassifyResult {
			for i := range out {
				out[i].Logits = []float32{0}
			}
			return out
		})},
		{"does not know a logit", scores, "is not a number", classifying(func(out []inference.ClassifyResult) []inference.ClassifyResult {
			for i := range out {
				out[i].Logits[3] = float32(math.NaN())
			}
			return out
		})},
		{"is of two kinds", "the model is described", `model type "other"`, mutant{TextModel: chatter{kind: "other"}}},
		{"has nothing to say in a chat", repeats, "no tokens came", chatting(func(inference.TextModel, context.Context, []inference.Message, []inference.GenerateOption) iter.Seq[inference.Token] {
			return func(func(inference.Token) bool) {}
		})},
		{"chats about something else each time", repeats, ", not ", chatting(func(m inference.TextModel, ctx context.Context, msgs []inference.Message, o []inference.GenerateOption) iter.Seq[inference.Token] {
			msgs = append(slices.Clone(msgs), inference.Message{Role: "user", Content: string('a' + turn.Add(1))})
			return m.Chat(ctx, msgs, o...)
		})},
		{"cuts runes in a chat", repeats, "not valid UTF-8", chatting(func(m inference.TextModel, ctx context.Context, msgs []inference.Message, o []inference.GenerateOption) iter.Seq[inference.Token] {
			return func(yield func(inference.Token) bool) {
				for t := range m.Chat(ctx, msgs, o...) {
					if !yield(inference.Token{ID: t.ID, Text: "\xf0\x9f"}) {
						return
					}
				}
			}
		})},
		{"goes on behind the context", "the end of the context ends it", "tokens after the context ended", mutant{
			generate: func(m inference.TextModel, ctx context.Context, p string, _ []inference.GenerateOption) iter.Seq[inference.Token] {
				return func(yield func(inference.Token) bool) {
					for t := range m.Generate(context.WithoutCancel(ctx), p, inference.WithMaxTokens(few)) {
						if !yield(t) {
							return
						}
					}
				}
			},
		}},
		{"mixes up who is beside whom", beside, "beside others: ", crowded()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			found(t, tc.check, tc.says, subject(t, sound{mutate: func(m inference.TextModel) inference.TextModel {
				if c, ok := tc.m.TextModel.(chatter); ok {
					c.TextModel = m
					m = c
				}
				tc.m.TextModel = m
				return tc.m
			}}))
		})
	}
}

// crowded is a mutant that answers another prompt during a generation.
func crowded() mutant {
	var running atomic.Int32
	return mutant{generate: func(m inference.TextModel, ctx context.Context, p string, o []inference.GenerateOption) iter.Seq[inference.Token] {
		return func(yield func(inference.Token) bool) {
			defer running.Add(-1)
			if running.Add(1) > 1 {
				p += " and another"
			}
			for t := range m.Generate(ctx, p, o...) {
				if !yield(t) {
					return
				}
			}
		}
	}}
}

// closed breaks one promise of a closed model.
type closed struct {
	inference.TextModel
	chat, batch, running bool

	gone *atomic.Bool
}

func (m closed) Close() error {
	m.gone.Store(true)
	return m.TextModel.Close()
}

func (m closed) Chat(ctx context.Context, msgs []inference.Message, o ...inference.GenerateOption) iter.Seq[inference.Token] {
	if m.chat && m.gone.Load() {
		return slices.Values([]inference.Token{{ID: 1, Text: "still here"}})
	}
	return m.TextModel.Chat(ctx, msgs, o...)
}

func (m closed) BatchGenerate(ctx context.Context, p []string, o ...inference.GenerateOption) ([]inference.BatchResult, error) {
	if m.batch && m.gone.Load() {
		return make([]inference.BatchResult, len(p)), nil
	}
	return m.TextModel.BatchGenerate(ctx, p, o...)
}

func (m closed) Err() error {
	if m.running && m.gone.Load() {
		return nil
	}
	return m.TextModel.Err()
}

// TestUseAfterCloseIsDetected breaks the promises of a closed model one at a time.
func TestUseAfterCloseIsDetected(t *testing.T) {
	const twice = "closing twice is fine, and using it then an error"
	for _, tc := range []struct {
		name, check, says string
		m                 closed
	}{
		{"goes on chatting", twice, "chat after close yields tokens", closed{chat: true}},
		{"goes on with batches", twice, "batch after close: err is nil", closed{batch: true}},
		{"ends well", "closing ends what runs", "yet err is nil", closed{running: true}},
		{"ends well, closed inside", "a loop may close its own model", "yet err is nil", closed{running: true}},
		{"ends well, unread", "closing does not wait for who reads a loop", "yet err is nil", closed{running: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := subject(t, sound{endless: tc.m.running, mutate: func(m inference.TextModel) inference.TextModel {
				tc.m.TextModel, tc.m.gone = m, new(atomic.Bool)
				return tc.m
			}})
			at := slices.IndexFunc(Checks(), func(c Check) bool { return c.Name == tc.check })
			if err := s.Verify(t.Context(), Checks()[at], nil); err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%q says %v, want %q", tc.check, err, tc.says)
			}
		})
	}
}

// hidden is a backend that is not available, or has no name.
type hidden struct {
	sound
	name      string
	available bool
}

func (b hidden) Name() string    { return b.name }
func (b hidden) Available() bool { return b.available }

// TestHiddenFailuresAreDetected has a backend without a name and one that is not
// available.
func TestHiddenFailuresAreDetected(t *testing.T) {
	for _, b := range []hidden{{name: "", available: true}, {name: "hidden", available: false}} {
		err := subject(t, b).Verify(t.Context(), loadChecks()[0], nil)
		if err == nil || !strings.Contains(err.Error(), "available") {
			t.Errorf("%q, available %v: %v", b.name, b.available, err)
		}
	}
}
