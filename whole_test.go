//go:build linux && amd64

package rocm_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// behind is a transport that does something once, when the first answer was
// taken whole and before its taker goes on.
type behind struct {
	http.RoundTripper

	do func()
}

func (b behind) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = bodyBehind{res.Body, b.do}
	}
	return res, err
}

type bodyBehind struct {
	io.ReadCloser

	do func()
}

func (b bodyBehind) Close() error {
	err := b.ReadCloser.Close()
	b.do()
	return err
}

func afterAnswer(m *rocm.Model, do func()) {
	client := m.Server().Child.HTTPClient()
	client.Transport = behind{client.Transport, sync.OnceFunc(do)}
}

// What is whole when the context ends or the model is closed is not taken back.
func TestWholeResultsStay(t *testing.T) {
	script := fakellama.Script{Reply: "yes"}
	prompts := []string{"one"}
	t.Run("BatchGenerate, cancelled", func(t *testing.T) {
		m := load(t, script)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		afterAnswer(m, cancel)
		out, err := m.BatchGenerate(ctx, prompts)
		if err != nil || m.Err() != nil || len(out) != 1 || out[0].Err != nil || text(out[0].Tokens) != "yes" {
			t.Errorf("got %+v, %v and %v", out, err, m.Err())
		}
		if out, err = m.BatchGenerate(ctx, prompts); !errors.Is(err, context.Canceled) || !errors.Is(out[0].Err, context.Canceled) {
			t.Errorf("the next one: %+v, %v", out, err)
		}
	})
	t.Run("BatchGenerate, closed", func(t *testing.T) {
		m := load(t, script)
		afterAnswer(m, func() { _ = m.Close() })
		out, err := m.BatchGenerate(t.Context(), prompts)
		if err != nil || len(out) != 1 || out[0].Err != nil || text(out[0].Tokens) != "yes" {
			t.Errorf("got %+v, %v", out, err)
		}
		if out, err = m.BatchGenerate(t.Context(), prompts); !errors.Is(err, rocm.ErrClosed) || !errors.Is(out[0].Err, rocm.ErrClosed) {
			t.Errorf("the next one: %+v, %v", out, err)
		}
	})
	t.Run("Classify, closed", func(t *testing.T) {
		m := load(t, script)
		afterAnswer(m, func() { _ = m.Close() })
		if out, err := m.Classify(t.Context(), prompts); err != nil || m.Err() != nil || len(out) != 1 || out[0].Token.Text != "yes"[:1] {
			t.Errorf("got %+v, %v and %v", out, err, m.Err())
		}
		for _, p := range [][]string{prompts, nil} {
			if _, err := m.Classify(t.Context(), p); !errors.Is(err, rocm.ErrClosed) || !errors.Is(m.Err(), rocm.ErrClosed) {
				t.Errorf("the next one, of %q: %v and %v", p, err, m.Err())
			}
			if _, err := m.BatchGenerate(t.Context(), p); !errors.Is(err, rocm.ErrClosed) {
				t.Errorf("a batch of %q: %v", p, err)
			}
		}
	})
}

// A token that only begins a rune has its logits from a second request, which
// counts.
func TestClassifyCountsTheSecondRequest(t *testing.T) {
	const delay = 2 * time.Millisecond
	measured := func(reply string) (inference.ClassifyResult, inference.GenerateMetrics) {
		m := load(t, fakellama.Script{Reply: reply, PromptDelay: delay})
		out, err := m.Classify(t.Context(), []string{"a small"}, inference.WithLogits())
		if err != nil {
			t.Fatal(err)
		}
		return out[0], m.Metrics()
	}
	_, one := measured("yes")
	part, two := measured("🌍")
	if part.Token.Text != "" {
		t.Fatalf("sampled %+v, want one that begins a rune", part.Token)
	}
	for id, l := range part.Logits {
		if l > part.Logits[part.Token.ID] {
			t.Errorf("the logit of token %d is %v, that of the sampled %d is %v", id, l, part.Token.ID, part.Logits[part.Token.ID])
		}
	}
	if one.GeneratedTokens != 1 || two.GeneratedTokens != 2 || one.PromptTokens == 0 || two.PromptTokens != 2*one.PromptTokens {
		t.Errorf("one request: %+v, two: %+v", one, two)
	}
	if two.PrefillDuration < 2*delay || two.TotalDuration < two.PrefillDuration {
		t.Errorf("times of two requests: %+v", two)
	}
}
