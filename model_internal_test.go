package rocm

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// fixedTimings has a different value in each member, and no rate that follows from the
// counts and times.
const fixedTimings = `"timings":{"cache_n":5,"prompt_n":7,"prompt_ms":11,"prompt_per_second":13.5,` +
	`"predicted_n":3,"predicted_ms":17,"predicted_per_second":19.25,"draft_n":23,"draft_n_accepted":21}`

// timed returns a stream of three tokens with fixed timings in each event.
func timed(evaluated string) string {
	var b strings.Builder
	for _, e := range []string{`"content":"a","tokens":[5],"stop":false,"tokens_predicted":1`, `"content":"b","tokens":[6],"stop":false,"tokens_predicted":2`, `"content":"c","tokens":[7],"stop":false,"tokens_predicted":3`, `"content":"","tokens":[],"stop":true,"stop_type":"limit","tokens_predicted":3`} {
		b.WriteString("data: {" + e + `,"tokens_evaluated":` + evaluated + "," + fixedTimings + "}\n\n")
	}
	return b.String()
}

// measured compares metrics field by field. TotalDuration is the client's own
// measurement, for which there is only an upper limit.
func measured(t *testing.T, got, want inference.GenerateMetrics, since time.Time) {
	t.Helper()
	if got.TotalDuration <= 0 || got.TotalDuration > time.Since(since) {
		t.Errorf("took %v of %v", got.TotalDuration, time.Since(since))
	}
	want.TotalDuration = got.TotalDuration
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// Each field of the metrics is the server's measurement, whether the stream is read to
// its end or ends at a stop token.
func TestMetricsAreThoseOfTheServer(t *testing.T) {
	for name, tc := range map[string]struct {
		evaluated string
		stop      []int32
		generated int
	}{
		"to the end":                        {"12", nil, 3},
		"prompt tokens without cached ones": {"7", nil, 3},
		"left at a stop token":              {"12", []int32{7}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			m := tapped(t, &wiretap{stream: timed(tc.evaluated)})
			since := time.Now()
			s := m.Stream(t.Context(), Request{GenerateConfig: inference.GenerateConfig{MaxTokens: 9, StopTokens: tc.stop}})
			if toks := slices.Collect(s.All()); s.Err() != nil || len(toks) != 3-len(tc.stop) {
				t.Fatal(toks, s.Err())
			}
			want := inference.GenerateMetrics{
				PromptTokens: 12, GeneratedTokens: tc.generated,
				PrefillDuration: 11 * time.Millisecond, DecodeDuration: 17 * time.Millisecond,
				PrefillTokensPerSec: 13.5, DecodeTokensPerSec: 19.25,
			}
			measured(t, s.Metrics(), want, since)
			measured(t, m.Metrics(), want, since)
			if x := s.Final().Timings; x.CachedTokens != 5 || x.PromptTokens != 7 || x.PredictedTokens != 3 || x.DraftTokens != 23 || x.DraftAccepted != 21 {
				t.Errorf("timings %+v", x)
			}
		})
	}
}

// Counts and times of a batch are the sums of its parts, and rates are tokens over the
// time of the whole batch.
func TestMetricsOfABatch(t *testing.T) {
	whole := `{"content":"a","tokens":[5],"stop":true,"stop_type":"limit","tokens_predicted":1,"tokens_evaluated":12,` + fixedTimings + `}`
	for name, tc := range map[string]struct {
		run       func(context.Context, *Model) error
		generated int
	}{
		"generate": {func(ctx context.Context, m *Model) error {
			_, err := m.BatchGenerate(ctx, []string{"a", "b", "c"})
			return err
		}, 9},
		"classify": {func(ctx context.Context, m *Model) error {
			_, err := m.Classify(ctx, []string{"a", "b", "c"})
			return err
		}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			m := tapped(t, &wiretap{stream: timed("12"), whole: whole})
			since := time.Now()
			if err := tc.run(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			got := m.Metrics()
			measured(t, got, inference.GenerateMetrics{
				PromptTokens: 36, GeneratedTokens: tc.generated,
				PrefillDuration: 33 * time.Millisecond, DecodeDuration: 51 * time.Millisecond,
				PrefillTokensPerSec: 36 / got.TotalDuration.Seconds(), DecodeTokensPerSec: float64(tc.generated) / got.TotalDuration.Seconds(),
			}, since)
		})
	}
}
