package rocm

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
)

// BatchGenerate implements inference.TextModel. All prompts run over the slots.
// When ctx ends or the model is closed before all prompts are done, BatchGenerate
// returns that error, each unfinished result has it too, and the others are
// complete. The error of a single prompt is in its result only.
func (m *Model) BatchGenerate(ctx context.Context, prompts []string, opts ...inference.GenerateOption) ([]inference.BatchResult, error) {
	cfg := inference.ApplyGenerateOpts(opts)
	start := time.Now()
	err := m.checkOpen()
	out := make([]inference.BatchResult, len(prompts))
	sums := make([]inference.GenerateMetrics, len(prompts))
	m.forEach(len(prompts), func(i int) {
		s := m.Stream(ctx, Request{Prompt: TextPrompt(prompts[i]), GenerateConfig: cfg})
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
	m.record(err, sum(sums, time.Since(start)), finishOf(err, false))
	return out, err
}

// checkOpen returns ErrClosed after Close.
func (m *Model) checkOpen() error {
	if m.life.Err() != nil {
		return ErrClosed
	}
	return nil
}

// Classify implements inference.TextModel. It samples one token for each prompt,
// batched over the slots. With logits each result has the natural logarithms of
// the probabilities before sampling, indexed by token id: they differ from the
// network's raw logits by one constant, so order, differences and softmax are the
// same. At temperature 0 the largest logit is the token's.
//
// A prompt that fails does not lose the others: Classify then returns a
// [*BatchError] with the error of each failed prompt, whose result is zero, and
// the results of all others. [Model.ClassifyEach] yields each result as soon as it
// is complete.
//
// llama-server sends no probabilities where the sampled token only begins a rune.
// With logits such a prompt is sent a second time, and Metrics count both
// requests.
func (m *Model) Classify(ctx context.Context, prompts []string, opts ...inference.GenerateOption) ([]inference.ClassifyResult, error) {
	out := make([]inference.ClassifyResult, len(prompts))
	err := m.classifyEach(ctx, prompts, opts, func(c Classified) bool {
		out[c.Index] = c.ClassifyResult
		return true
	})
	return out, err
}

// Classified is the result of one prompt of [Model.ClassifyEach].
type Classified struct {
	inference.ClassifyResult

	// Index is the prompt's position.
	Index int
	// Err is the prompt's error; the result is zero then.
	Err error
}

// ClassifyEach is Classify with progress: it yields the result of each prompt as
// soon as the result is complete, in no order. Leaving the loop ends the rest.
func (m *Model) ClassifyEach(ctx context.Context, prompts []string, opts ...inference.GenerateOption) iter.Seq[Classified] {
	return func(yield func(Classified) bool) { _ = m.classifyEach(ctx, prompts, opts, yield) }
}

func (m *Model) classifyEach(ctx context.Context, prompts []string, opts []inference.GenerateOption, yield func(Classified) bool) error {
	cfg := inference.ApplyGenerateOpts(opts)
	cfg.MaxTokens = 1
	start := time.Now()
	closed := m.checkOpen()
	joined, cancel := m.joinContexts(ctx)
	sums := make([]inference.GenerateMetrics, len(prompts))
	results := make(chan Classified)
	go func() {
		defer close(results)
		m.forEach(len(prompts), func(i int) {
			c := Classified{Index: i}
			var err error
			c.ClassifyResult, sums[i], err = m.classify(joined, prompts[i], cfg)
			c.Err = m.translateError(ctx, err)
			results <- c
		})
	}()
	defer func() { // also where yield panics: no request outlives the call
		cancel()
		for range results {
		}
	}()
	failed := map[int]error{}
	left := false
	for c := range results {
		if c.Err != nil {
			failed[c.Index] = c.Err
		}
		if left = !yield(c); left {
			break
		}
	}
	cancel()
	for range results { // the rest ends, and sums is complete
	}
	err := closed
	if err == nil && len(failed) > 0 {
		err = &BatchError{Errs: failed}
	}
	m.record(err, sum(sums, time.Since(start)), finishOf(err, left))
	return err
}

// BatchError is the error of a batch in which some prompts failed.
type BatchError struct {
	// Errs has the error of each failed prompt, by the prompt's position.
	Errs map[int]error
}

// Error returns the error of the first failed prompt and the number of the others.
func (e *BatchError) Error() string {
	positions := slices.Sorted(maps.Keys(e.Errs))
	if len(positions) == 0 {
		return "no prompt failed"
	}
	text := fmt.Sprintf("prompt %d: %v", positions[0], e.Errs[positions[0]])
	if others := len(positions) - 1; others > 0 {
		text += fmt.Sprintf(" (and %d other prompts failed)", others)
	}
	return text
}

// Unwrap returns the errors in the order of the prompts.
func (e *BatchError) Unwrap() []error {
	out := make([]error, 0, len(e.Errs))
	for _, i := range slices.Sorted(maps.Keys(e.Errs)) {
		out = append(out, e.Errs[i])
	}
	return out
}

func (m *Model) classify(ctx context.Context, prompt string, cfg inference.GenerateConfig) (inference.ClassifyResult, inference.GenerateMetrics, error) {
	var none inference.ClassifyResult
	req := Request{GenerateConfig: cfg}
	if err := errors.Join(req.validate(), ctx.Err()); err != nil {
		return none, inference.GenerateMetrics{}, err
	}
	r := m.withScales(req.completion(&preparedPrompt{text: prompt}))
	r.StopIDs = nil // the token is the result, whichever it is
	vocab := m.srv.Info.VocabSize
	if cfg.ReturnLogits {
		r.Probs = vocab
	}
	res, err := m.api.Complete(ctx, r)
	if err != nil {
		return none, inference.GenerateMetrics{}, err
	}
	c := res[0]
	if err := checkPromptTokens(c.Final); err != nil {
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

// positions repeats a request whose answer had no probabilities: llama-server
// sends none for a token that only begins a rune (process_token in
// server-context.cpp). The probabilities are the network's before any bias, so a
// second request that is biased towards a whole letter returns the same.
func (m *Model) positions(ctx context.Context, r *llamaapi.CompletionRequest) (llamaapi.Completion, error) {
	retry := *r
	retry.Extra = map[string]any{"logit_bias": []any{[]any{"a", 1e6}}}
	res, err := m.api.Complete(ctx, &retry)
	switch {
	case err != nil:
		return llamaapi.Completion{}, err
	case len(res[0].Positions) == 0:
		return llamaapi.Completion{}, fmt.Errorf("%w: no probabilities came", llamaapi.ErrMalformed)
	}
	return res[0], nil
}

// forEach runs work for 0 to n-1 concurrently. Twice as many requests as slots are
// in flight, so that the server always has the next one. An errgroup would do the
// same, and would be a third module that every user of the library downloads.
func (m *Model) forEach(n int, work func(i int)) {
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(n, 2*m.slots) {
		workers.Go(func() {
			for i := range next {
				work(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
}

// sum adds up the metrics of a batch. The rates are tokens over the wall time of
// the batch, because its parts ran concurrently.
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
