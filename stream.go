package rocm

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
)

// Request is a generation with everything that can be said about it. At most one
// of Prompt, Tokens, Messages and MediaMessages is given; without any the prompt
// is empty, which is an ErrOption where the model puts no token before it. So is
// whatever is out of its range.
type Request struct {
	// Prompt is continued as it is; special tokens written in it count as such.
	Prompt string
	// Tokens are continued as they are.
	Tokens []int32
	// Messages are a conversation for the model's template. An empty one that
	// is not nil is an error.
	Messages []inference.Message
	// MediaMessages are a conversation with images or sound.
	MediaMessages []MediaMessage
	// TemplateVars are handed to the template, for example enable_thinking, which
	// llama-server sets to true where it is not given.
	TemplateVars map[string]any
	// Media go to the places of MediaMarker in Prompt, in their order, or before
	// it where it has none.
	Media []Media

	// GenerateConfig is the contract's part. Start from
	// inference.DefaultGenerateConfig() and change what is to be otherwise: the zero
	// value has MaxTokens 0, with which nothing is asked of the server and nothing
	// yielded.
	inference.GenerateConfig
	// Seed, from 0 to 4294967294, makes sampling repeatable; nil: a random one.
	// Others are an ErrOption: llama-server would take their last 32 bits, and all
	// of these set as a random one.
	Seed *int64
	// MinP drops tokens whose probability is below that share of the best
	// one's; 0: none.
	MinP float32
	// Stop holds texts that end the generation; they are not yielded. None is
	// empty.
	Stop []string
	// Grammar is GBNF, JSONSchema a schema that the text keeps to; one of them.
	Grammar    string
	JSONSchema json.RawMessage
	// ReuseCache says whether what a slot still holds of the prompt is reused.
	// nil: only when Temperature is not 0, for reuse changes the order of
	// floating point sums, and the greedy choice with it.
	ReuseCache *bool
	// Slot pins the request to one slot, from 0 to Model.Slots()-1; nil: the server
	// chooses.
	Slot *int
	// Adapters sets the scales of LoRA adapters for this request; those of
	// Model.Adapters, by their ids.
	Adapters []llamaapi.LoRAScale
	// Progress is told how far the prompt is processed.
	Progress func(llamaapi.Progress)
}

// Stream is one generation with its own error and metrics, which other
// generations do not touch. One goroutine reads it; Close may be called by any.
type Stream struct {
	m      *Model
	ctx    context.Context //nolint:containedctx // the caller's, for the one request
	joined context.Context //nolint:containedctx // the caller's and the model's life
	cancel context.CancelFunc
	req    Request
	start  time.Time

	closed atomic.Bool // by its user

	// mu is held by whoever reads at the moment.
	mu      sync.Mutex
	in      *llamaapi.Stream
	started bool
	over    bool
	err     error
	metrics inference.GenerateMetrics
}

// Stream starts a generation when it is first read. Read it to its end, or
// close it.
func (m *Model) Stream(ctx context.Context, req Request) *Stream {
	s := &Stream{m: m, ctx: ctx, req: req}
	s.joined, s.cancel = m.during(ctx)
	return s
}

// All yields the remaining tokens. Leaving the loop frees the slot.
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

// Next waits for the next token; false at the end. Err tells how it ended.
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
		err = begun(s.in.Final())
	}
	s.finish(err)
	return inference.Token{}, false
}

func (s *Stream) send() error {
	if err := s.m.open(); err != nil {
		return err
	}
	if err := s.joined.Err(); err != nil {
		return err
	}
	req, err := s.m.withMedia(s.joined, s.req)
	if err != nil {
		return err
	}
	r, err := req.wire()
	if err != nil {
		return err
	}
	if err := s.m.admit(s.joined, &req); err != nil {
		return err
	}
	if req.MaxTokens == 0 {
		return nil // nothing asked for: nothing to do
	}
	if len(req.Messages) > 0 {
		text, err := s.m.template(s.joined, &req)
		if err != nil {
			return err
		}
		r.Prompts[0].Text = text
	}
	in, err := s.m.api.Completion(s.joined, r)
	if err != nil && len(r.Prompts[0].Media) > 0 {
		err = mediaError(err)
	}
	if err != nil {
		return err
	}
	if s.req.Progress != nil {
		in.OnProgress(s.req.Progress)
	}
	s.in = in
	return nil
}

// template applies the model's chat template.
func (m *Model) template(ctx context.Context, r *Request) (string, error) {
	messages := make([]llamaapi.Message, len(r.Messages))
	for i, msg := range r.Messages {
		messages[i] = llamaapi.Message{Role: msg.Role, Content: msg.Content}
	}
	text, err := m.api.ApplyTemplate(ctx, messages, llamaapi.TemplateOptions{Vars: r.TemplateVars})
	if err != nil {
		return "", fmt.Errorf("chat template of %s: %w", m.srv.Path, err)
	}
	return text, nil
}

// Close ends the generation and frees its slot. It may be called at any time,
// by any goroutine, and more than once.
func (s *Stream) Close() error {
	s.closed.Store(true)
	s.cancel() // wakes a reader, who then finishes
	if s.mu.TryLock() {
		defer s.mu.Unlock()
		s.finish(nil)
	}
	return nil
}

// finish settles error and metrics once; mu is held.
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
		err = nil // it was closed on purpose
	}
	s.err = s.m.explain(s.ctx, err)
	total := time.Duration(0)
	if s.started {
		total = time.Since(s.start)
	}
	s.metrics = s.m.ended(s.err, metricsOf(f, total))
}

// Err is why the generation failed, nil when it ended well or was closed by its
// reader. It is valid once the reading is over.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Metrics are those of this generation, valid once the reading is over. One that
// was left before its end has counts and TotalDuration alone: llama-server tells
// its times in the final event.
func (s *Stream) Metrics() inference.GenerateMetrics {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.metrics
}

// Final is what the server told at the end: reason, timings, slot.
func (s *Stream) Final() llamaapi.Final {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in == nil {
		return llamaapi.Final{Reason: llamaapi.StopNone}
	}
	return s.in.Final()
}

// wire makes the body of /completion. The contract's zero values mean no limit,
// where the server's defaults would mean something else. It reads whole numbers as
// 32 bits: a limit above them is the largest that it knows, which no context holds.
func (r *Request) wire() (*llamaapi.CompletionRequest, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	topP, penalty, minP := r.TopP, r.RepeatPenalty, r.MinP
	if topP == 0 {
		topP = 1
	}
	if penalty == 0 {
		penalty = 1
	}
	cache := r.Temperature != 0
	if r.ReuseCache != nil {
		cache = *r.ReuseCache
	}
	topK, maxTokens, temperature := min(r.TopK, math.MaxInt32), min(r.MaxTokens, math.MaxInt32), r.Temperature
	return &llamaapi.CompletionRequest{
		Prompts:   []llamaapi.Prompt{{Text: r.Prompt, Tokens: r.Tokens, Media: files(r.Media)}},
		MaxTokens: &maxTokens, Temperature: &temperature, TopK: &topK, TopP: &topP, MinP: &minP,
		RepeatPenalty: &penalty, Seed: r.Seed, Stop: r.Stop, StopIDs: r.StopTokens, Grammar: r.Grammar,
		JSONSchema: r.JSONSchema, CachePrompt: &cache, Slot: r.Slot, LoRA: r.Adapters, Progress: r.Progress != nil,
	}, nil
}

func (r *Request) validate() error {
	given := 0
	for _, is := range []bool{r.Prompt != "", len(r.Tokens) > 0, len(r.Messages) > 0, len(r.MediaMessages) > 0} {
		if is {
			given++
		}
	}
	bad := func(v float32) bool { return v < 0 || math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }
	switch {
	case given > 1:
		return fmt.Errorf("%w: prompt, tokens and messages exclude each other", ErrOption)
	case r.Messages != nil && len(r.Messages) == 0:
		return fmt.Errorf("%w: a chat without messages; give at least one", ErrOption)
	case r.MaxTokens < 0:
		return fmt.Errorf("%w: at most %d tokens; give a number from 0", ErrOption, r.MaxTokens)
	case bad(r.Temperature):
		return fmt.Errorf("%w: temperature %v; give 0 for greedy or a positive number", ErrOption, r.Temperature)
	case r.TopK < 0:
		return fmt.Errorf("%w: top-k %d; give 0 for no limit", ErrOption, r.TopK)
	case bad(r.TopP) || r.TopP > 1:
		return fmt.Errorf("%w: top-p %v; give a number from 0 to 1", ErrOption, r.TopP)
	case bad(r.MinP) || r.MinP > 1:
		return fmt.Errorf("%w: min-p %v; give a number from 0 to 1", ErrOption, r.MinP)
	case bad(r.RepeatPenalty):
		return fmt.Errorf("%w: repeat penalty %v; give 1 for none", ErrOption, r.RepeatPenalty)
	case r.Seed != nil && (*r.Seed < 0 || *r.Seed >= math.MaxUint32):
		return fmt.Errorf("%w: seed %d; give a number from 0 to %d, or nil for a random one", ErrOption, *r.Seed, uint32(math.MaxUint32-1))
	}
	if i := slices.Index(r.Stop, ""); i >= 0 {
		return fmt.Errorf("%w: stop text %d is empty, which every text begins with; leave it out", ErrOption, i)
	}
	return nil
}
