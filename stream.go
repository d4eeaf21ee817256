package rocm

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Stream is one generation with an error and metrics of its own. One goroutine
// reads it; any goroutine may close it.
type Stream struct {
	m      *Model
	ctx    context.Context //nolint:containedctx // the caller's, for this request
	joined context.Context //nolint:containedctx // ends with ctx or with the model
	cancel context.CancelFunc
	req    Request
	start  time.Time

	closed atomic.Bool // by Close

	// mu is held while Next reads.
	mu      sync.Mutex
	in      *llamaapi.Stream
	started bool
	over    bool
	err     error
	metrics inference.GenerateMetrics
	reason  inference.FinishReason
}

// Stream returns a generation that starts when it is first read. The caller reads
// it to its end, or closes it.
func (m *Model) Stream(ctx context.Context, req Request) *Stream {
	s := &Stream{m: m, ctx: ctx, req: req}
	s.joined, s.cancel = m.joinContexts(ctx)
	return s
}

// All yields the remaining tokens. Leaving the loop closes the stream.
func (s *Stream) All() iter.Seq[inference.Token] {
	return func(yield func(inference.Token) bool) {
		defer func() { _ = s.Close() }()
		for {
			t, ok := s.Next()
			if !ok || !yield(t) {
				return
			}
		}
	}
}

// Next waits for the next token and returns false at the end. Err has the reason
// of a failure.
func (s *Stream) Next() (inference.Token, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return inference.Token{}, false
	}
	if !s.started {
		s.started, s.start = true, time.Now()
		if err := s.send(); err != nil {
			s.finish(err)
			return inference.Token{}, false
		}
	}
	if s.in != nil && s.in.Next() {
		return inference.Token(s.in.Token()), true
	}
	var err error
	if s.in != nil && s.in.Err() == nil {
		err = checkPromptTokens(s.in.Final())
	}
	s.finish(err)
	return inference.Token{}, false
}

// send sends the request.
func (s *Stream) send() error {
	if err := s.m.checkOpen(); err != nil {
		return err
	}
	if err := s.joined.Err(); err != nil {
		return err
	}
	r := &s.req
	if err := r.validate(); err != nil {
		return err
	}
	p, err := s.m.preparePrompt(s.joined, &r.Prompt)
	if err != nil {
		return err
	}
	if err := s.m.checkTarget(s.joined, r); err != nil {
		return err
	}
	if r.MaxTokens == 0 {
		return nil // nothing to generate
	}
	if p.messages != nil {
		if p.text, err = s.m.applyTemplate(s.joined, p.messages, r.TemplateVars); err != nil {
			return err
		}
	}
	in, err := s.m.api.Completion(s.joined, s.m.withScales(r.completion(&p)))
	if err != nil && len(p.media) > 0 {
		err = mediaError(err)
	}
	if err != nil {
		return err
	}
	if r.Progress != nil {
		in.OnProgress(r.Progress)
	}
	s.in = in
	return nil
}

// applyTemplate returns the messages as text, formatted with the model's chat template.
func (m *Model) applyTemplate(ctx context.Context, messages []llamaapi.Message, vars map[string]any) (string, error) {
	// A template may loop for these messages: supervise.Work says how that is found.
	ctx = supervise.WithWork(ctx, supervise.Work{Judged: true, NoSlot: true})
	text, err := m.api.ApplyTemplate(ctx, messages, llamaapi.TemplateOptions{Vars: vars})
	if err != nil {
		return "", fmt.Errorf("chat template of %s: %w", m.srv.Path, err)
	}
	return text, nil
}

// Close ends the generation and frees its slot. Any goroutine may call it, at any
// time and more than once.
func (s *Stream) Close() error {
	s.closed.Store(true)
	s.cancel() // wakes a reader, which then finishes
	if s.mu.TryLock() {
		defer s.mu.Unlock()
		s.finish(nil)
	}
	return nil
}

// finish sets the error and the metrics, once; mu is held.
func (s *Stream) finish(err error) {
	if s.over {
		return
	}
	s.over = true
	s.cancel()
	var f llamaapi.Final
	if s.in != nil {
		_ = s.in.Close()
		f = s.in.Final()
		if err == nil {
			err = s.in.Err()
		}
	}
	if err != nil && s.closed.Load() && s.m.life.Err() == nil && s.ctx.Err() == nil {
		err = nil // closed by the caller
	}
	s.err = s.m.translateError(s.ctx, err)
	total := time.Duration(0)
	if s.started {
		total = time.Since(s.start)
	}
	s.reason = s.finishReason(f)
	s.metrics = s.m.record(s.err, metricsOf(f, total), s.reason)
}

// finishReason returns why the generation ended; mu is held.
func (s *Stream) finishReason(f llamaapi.Final) inference.FinishReason {
	switch {
	case s.err != nil:
		return finishOf(s.err, false)
	case s.in == nil && s.started && s.req.MaxTokens == 0:
		return inference.FinishLength
	case s.in == nil, f.Reason == llamaapi.StopNone, f.Reason == "":
		return inference.FinishCancelled
	case f.Reason != llamaapi.StopLimit:
		return inference.FinishStop
	case f.PredictedTokens < s.req.MaxTokens:
		return inference.FinishContext
	}
	return inference.FinishLength
}

// FinishReason returns why the generation ended; FinishNone before its end.
func (s *Stream) FinishReason() inference.FinishReason {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

// Err returns the error that ended the generation; nil when the generation was
// complete or was closed. It is valid after the last token.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Metrics returns the metrics of this generation, valid after the last token. A
// generation that was left before its end has counts and TotalDuration only:
// llama-server sends its times in the final event.
func (s *Stream) Metrics() inference.GenerateMetrics {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.metrics
}

// Final returns the server's last event: reason, timings and slot.
func (s *Stream) Final() llamaapi.Final {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in == nil {
		return llamaapi.Final{Reason: llamaapi.StopNone}
	}
	return s.in.Final()
}
