//go:build linux && amd64

package rocm_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

func TestClassify(t *testing.T) {
	m := load(t, fakellama.Script{Slots: 2, Reply: "yes"})
	prompts := []string{"one", "two", "three", "four", "five"}
	plain, err := m.Classify(t.Context(), prompts)
	if err != nil || len(plain) != len(prompts) {
		t.Fatalf("%d results, %v", len(plain), err)
	}
	with, err := m.Classify(t.Context(), prompts, inference.WithLogits())
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range with {
		if plain[i].Logits != nil {
			t.Error("logits that nobody asked for")
		}
		if len(r.Logits) != m.Info().VocabSize {
			t.Fatalf("%d logits for a vocabulary of %d", len(r.Logits), m.Info().VocabSize)
		}
		best := 0
		for id, v := range r.Logits {
			if v > r.Logits[best] {
				best = id
			}
		}
		if int32(best) != r.Token.ID || r.Token.ID != plain[i].Token.ID {
			t.Errorf("prompt %d: sampled %d, most likely %d, without logits %d", i, r.Token.ID, best, plain[i].Token.ID)
		}
	}
	if g := m.Metrics(); g.GeneratedTokens != len(prompts) {
		t.Errorf("metrics %+v", g)
	}
}

func TestBatchGenerate(t *testing.T) {
	m := load(t, fakellama.Script{Slots: 3}, inference.WithParallelSlots(3))
	var prompts []string
	for i := range 12 {
		prompts = append(prompts, strings.Repeat("word ", i+1))
	}
	out, err := m.BatchGenerate(t.Context(), prompts, inference.WithMaxTokens(15))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range out {
		if r.Err != nil {
			t.Fatalf("prompt %d: %v", i, r.Err)
		}
		alone := collect(m.Generate(t.Context(), prompts[i], inference.WithMaxTokens(15)))
		if text(r.Tokens) != text(alone) {
			t.Errorf("prompt %d in the batch gives %q, alone %q", i, text(r.Tokens), text(alone))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out, err = m.BatchGenerate(ctx, prompts)
	if !errors.Is(err, context.Canceled) || !errors.Is(out[11].Err, context.Canceled) {
		t.Errorf("cancelled: %v and %v", err, out[11].Err)
	}
	if none, err := m.BatchGenerate(t.Context(), nil); err != nil || len(none) != 0 {
		t.Errorf("no prompts: %d results, %v", len(none), err)
	}
}

// The failure of one prompt does not affect the others.
func TestBatchErrorsArePerPrompt(t *testing.T) {
	m := load(t, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindStatus, Request: 2, Status: 400, Type: "invalid_request_error", Message: "no"}}})
	out, err := m.BatchGenerate(t.Context(), []string{"a", "b", "c", "d"})
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, r := range out {
		if r.Err == nil {
			continue
		}
		failed++
		var api *llamaapi.APIError
		if !errors.As(r.Err, &api) || api.Status != 400 || api.Message != "no" {
			t.Errorf("got %v, want the server's status and message", r.Err)
		}
	}
	if failed != 1 {
		t.Errorf("%d prompts failed, want one", failed)
	}
}

// One prompt that fails does not lose the results of the others.
func TestClassifyReturnsPartialResults(t *testing.T) {
	m := load(t, fakellama.Script{Slots: 2, Reply: "yes"})
	prompts := []string{"one", "", "three", "", "five"}
	out, err := m.Classify(t.Context(), prompts)
	var batch *rocm.BatchError
	if !errors.As(err, &batch) || len(batch.Errs) != 2 || !errors.Is(batch.Errs[1], rocm.ErrInvalidOption) || !errors.Is(err, rocm.ErrInvalidOption) ||
		!strings.Contains(err.Error(), "prompt 1") || !strings.Contains(err.Error(), "1 other") {
		t.Errorf("%v; want a BatchError of prompts 1 and 3", err)
	}
	for i, r := range out {
		if (r.Token.Text == "") != (prompts[i] == "") {
			t.Errorf("prompt %d: %+v", i, r)
		}
	}
	seen := map[int]error{}
	for c := range m.ClassifyEach(t.Context(), prompts) {
		if seen[c.Index] = c.Err; (c.Err == nil) != (c.Token.Text != "") {
			t.Errorf("%+v", c)
		}
	}
	if len(seen) != len(prompts) || seen[0] != nil || seen[1] == nil {
		t.Errorf("yielded %v", seen)
	}
}

func TestClassifyEachEndsAtABreak(t *testing.T) {
	m := load(t, fakellama.Script{Slots: 2, Reply: "yes", PromptDelay: time.Millisecond})
	n := 0
	for range m.ClassifyEach(t.Context(), slices.Repeat([]string{"a prompt"}, 500)) {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 || m.Err() == nil && m.FinishReason() != inference.FinishCancelled {
		t.Errorf("%d results, %v, %q", n, m.Err(), m.FinishReason())
	}
	waitIdle(t, m)
}

// afterBody is a transport that calls do once, after the first response was read and
// before its reader continues.
type afterBody struct {
	http.RoundTripper

	do func()
}

func (b afterBody) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = closeBody{res.Body, b.do}
	}
	return res, err
}

type closeBody struct {
	io.ReadCloser

	do func()
}

func (b closeBody) Close() error {
	err := b.ReadCloser.Close()
	b.do()
	return err
}

func afterAnswer(m *rocm.Model, do func()) {
	client := m.Server().Child.HTTPClient()
	client.Transport = afterBody{client.Transport, sync.OnceFunc(do)}
}

// A result that is complete when the context ends or the model is closed stays valid.
func TestCompleteResultsSurviveCancel(t *testing.T) {
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

// The logits of a token that only begins a rune come from a second request, which
// the metrics include.
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

// TestBatchUsesAllSlots looks at /slots while a batch runs.
func TestBatchUsesAllSlots(t *testing.T) {
	const slots = 3
	m := load(t, fakellama.Script{Slots: slots, NeverEnds: true, TokenDelay: time.Millisecond, ContextLen: 1 << 30}, inference.WithParallelSlots(slots))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = m.BatchGenerate(ctx, slices.Repeat([]string{"p"}, 2*slots), inference.WithMaxTokens(1<<20)) // ends with ctx
	}()
	poll.Until(t, "work in all slots together", func() bool {
		state, err := m.API().Slots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		busy := 0
		for _, s := range state {
			if s.Processing && s.Decoded() > 0 {
				busy++
			}
		}
		return busy == slots
	})
	cancel()
	<-over
}
