package rocm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
)

// BatchGenerate implements inference.TextModel: all prompts run over the slots,
// a new one beginning where one has ended. When ctx ends, or the model is
// closed, before all are done, the error says so and each unfinished prompt
// carries it too; the others keep their results. A prompt that fails for itself
// has its error in its result alone.
func (m *Model) BatchGenerate(ctx context.Context, prompts []string, opts ...inference.GenerateOption) ([]inference.BatchResult, error) {
	cfg := inference.ApplyGenerateOpts(opts)
	start := time.Now()
	err := m.open()
	out := make([]inference.BatchResult, len(prompts))
	sums := make([]inference.GenerateMetrics, len(prompts))
	m.spread(len(prompts), func(i int) {
		s := m.Stream(ctx, Request{Prompt: prompts[i], GenerateConfig: cfg})
		for t := range s.All() {
			out[i].Tokens = append(out[i].Tokens, t)
		}
		out[i].Err, sums[i] = s.Err(), s.Metrics()
	})
	for _, r := range out {
		if ended := ctx.Err(); err == nil && (errors.Is(r.Err, ErrClosed) || ended != nil && errors.Is(r.Err, ended)) {
			err = r.Err
		}
	}
	m.ended(err, sum(sums, time.Since(start)))
	return out, err
}

// open is ErrClosed once the model is closed.
func (m *Model) open() error {
	if m.life.Err() != nil {
		return ErrClosed
	}
	return nil
}

// Classify implements inference.TextModel. One token is sampled after one
// prefill for each prompt, batched over the slots. With logits each result
// carries the natural logarithms of the probabilities before sampling, indexed
// by token id: they differ from the network's raw logits by one constant, so
// order, differences and softmax are the same. At temperature 0 the largest is
// that of the token. The result is all or nothing: the error is the first that a
// prompt met, and says which.
//
// llama-server tells no probabilities where the sampled token only begins a rune.
// With logits such a prompt is sent a second time, and Metrics count both: its
// prompt and its token twice, and the time of both.
func (m *Model) Classify(ctx context.Context, prompts []string, opts ...inference.GenerateOption) ([]inference.ClassifyResult, error) {
	cfg := inference.ApplyGenerateOpts(opts)
	cfg.MaxTokens = 1
	start := time.Now()
	joined, cancel := m.during(ctx)
	defer cancel()
	out := make([]inference.ClassifyResult, len(prompts))
	sums := make([]inference.GenerateMetrics, len(prompts))
	var mu sync.Mutex
	first := m.open()
	m.spread(len(prompts), func(i int) {
		var err error
		out[i], sums[i], err = m.classify(joined, prompts[i], cfg)
		if err == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = fmt.Errorf("prompt %d: %w", i, m.explain(ctx, err))
			cancel() // the result is all or nothing
		}
	})
	m.ended(first, sum(sums, time.Since(start)))
	if first != nil {
		return nil, first
	}
	return out, nil
}

func (m *Model) classify(ctx context.Context, prompt string, cfg inference.GenerateConfig) (inference.ClassifyResult, inference.GenerateMetrics, error) {
	var none inference.ClassifyResult
	req := Request{Prompt: prompt, GenerateConfig: cfg}
	r, err := req.wire()
	if err != nil {
		return none, inference.GenerateMetrics{}, err
	}
	if err := ctx.Err(); err != nil {
		return none, inference.GenerateMetrics{}, err
	}
	r.StopIDs = nil // the one token is the result, whichever it is
	vocab := m.srv.Info.VocabSize
	if cfg.ReturnLogits {
		r.Probs = vocab
	}
	res, err := m.api.Complete(ctx, r)
	if err != nil {
		return none, inference.GenerateMetrics{}, err
	}
	c := res[0]
	if err := begun(c.Final); err != nil {
		return none, inference.GenerateMetrics{}, err
	}
	spent := []inference.GenerateMetrics{metricsOf(c.Final, 0)}
	if len(c.Tokens) == 0 {
		return none, inference.GenerateMetrics{}, fmt.Errorf("%w: no token was sampled", llamaapi.ErrMalformed)
	}
	// The server writes U+FFFD for a rune that the token only begins.
	result := inference.ClassifyResult{Token: inference.Token{ID: c.Tokens[0], Text: strings.TrimRight(c.Text, "\uFFFD")}}
	if cfg.ReturnLogits {
		if len(c.Positions) == 0 {
			if c, err = m.positions(ctx, r); err != nil {
				return none, inference.GenerateMetrics{}, err
			}
			spent = append(spent, metricsOf(c.Final, 0))
		}
		if result.Logits, err = c.Positions[0].Logits(vocab); err != nil {
			return none, inference.GenerateMetrics{}, err
		}
	}
	return result, sum(spent, 0), nil
}

// positions asks again for an answer that came without any: llama-server tells no
// probabilities for a token that only begins a rune (process_token in
// server-context.cpp). They are taken from the network before any bias, so a
// second request that is made to sample a whole letter tells the same.
func (m *Model) positions(ctx context.Context, r *llamaapi.CompletionRequest) (llamaapi.Completion, error) {
	again := *r
	again.Extra = map[string]any{"logit_bias": []any{[]any{"a", 1e6}}}
	res, err := m.api.Complete(ctx, &again)
	switch {
	case err != nil:
		return llamaapi.Completion{}, err
	case len(res[0].Positions) == 0:
		return llamaapi.Completion{}, fmt.Errorf("%w: no probabilities came", llamaapi.ErrMalformed)
	}
	return res[0], nil
}

// spread runs work for 0 to n-1. Twice as many as there are slots are under way,
// so that the server always has a next one at hand.
func (m *Model) spread(n int, work func(i int)) {
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(n, 2*m.slots) {
		wg.Go(func() {
			for i := range next {
				work(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// sum adds up the metrics of a batch; the rates are tokens over the wall time of
// the whole, since its parts ran side by side.
func sum(parts []inference.GenerateMetrics, total time.Duration) inference.GenerateMetrics {
	all := inference.GenerateMetrics{TotalDuration: total}
	for _, p := range parts {
		all.PromptTokens += p.PromptTokens
		all.GeneratedTokens += p.GeneratedTokens
		all.PrefillDuration += p.PrefillDuration
		all.DecodeDuration += p.DecodeDuration
	}
	if s := total.Seconds(); s > 0 && !math.IsInf(s, 0) {
		all.PrefillTokensPerSec = float64(all.PromptTokens) / s
		all.DecodeTokensPerSec = float64(all.GeneratedTokens) / s
	}
	return all
}
