package rocm

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
)

// Model is a loaded model. It implements inference.TextModel; Stream, Embed and
// others go beyond the contract. All methods may be called concurrently.
type Model struct {
	srv   *Server
	api   *llamaapi.Client
	slots int
	// props are the server's properties, read when media are used first.
	props atomic.Pointer[llamaapi.Props]
	// adapters is the number of LoRA adapters, read when a request first sets one.
	adapters atomic.Pointer[int]
	// scales are those of SetAdapters. A process that replaces a failed one has its
	// adapters at full scale, so each request sends the scales.
	scales atomic.Pointer[[]llamaapi.LoRAScale]

	// life ends with Close, and every operation with it.
	life     context.Context //nolint:containedctx // the life of the model itself
	end      context.CancelCauseFunc
	close    sync.Once
	closeErr error

	mu      sync.Mutex
	err     error
	metrics inference.GenerateMetrics
	finish  inference.FinishReason
	peak    uint64
}

var (
	_ inference.TextModel      = (*Model)(nil)
	_ inference.FinishReporter = (*Model)(nil)
)

func newModel(ctx context.Context, srv *Server) (*Model, error) {
	m := &Model{srv: srv, api: llamaapi.New(srv.Child.BaseURL(), srv.Child.HTTPClient())}
	var err error
	if m.slots, err = m.waitDecodeLoop(ctx); err != nil {
		return nil, fmt.Errorf("load %s: %w", srv.Path, err)
	}
	m.life, m.end = context.WithCancelCause(context.Background())
	m.peak = srv.usedMemory()
	return m, nil
}

// waitDecodeLoop waits until llama-server runs the loop that decodes, and returns
// the number of slots. llama-server enters the loop after it has reported that it
// is ready. A request to stop in between would be lost, and the process would have
// to be killed: start_loop sets what terminate has cleared (server-queue.cpp). The
// loop answers /slots. A server that hides its slots has their number in /props;
// where the loop does not answer, the first request fails with the reason.
func (m *Model) waitDecodeLoop(ctx context.Context) (slots int, err error) {
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if all, err := m.api.Slots(short); err == nil && len(all) > 0 {
		return len(all), nil
	}
	props, err := m.api.Props(ctx)
	if err != nil {
		return 0, err
	}
	return max(1, props.TotalSlots), nil
}

// Server returns the model's server: process, plan and paths.
func (m *Model) Server() *Server { return m.srv }

// API returns the client of the model's llama-server, for requests that this
// package has no method for.
func (m *Model) API() *llamaapi.Client { return m.api }

// Slots returns the number of sequences that are decoded together.
func (m *Model) Slots() int { return m.slots }

// ModelType implements inference.TextModel. It returns the architecture.
func (m *Model) ModelType() string { return m.srv.Info.Architecture }

// Info implements inference.TextModel. It returns facts from the model's header.
func (m *Model) Info() inference.ModelInfo { return m.srv.Info }

// Metrics implements inference.TextModel: the metrics of the operation that ended
// last. Times are the server's. PromptTokens includes tokens found in the cache;
// PrefillTokensPerSec is the rate of the computed ones. A generation that was left
// before its end, by a break, a context or Close, has counts and TotalDuration
// only: the server sends the other times in its final event. Memory is the memory
// in use on the GPUs of the plan.
func (m *Model) Metrics() inference.GenerateMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.metrics
}

// Err implements inference.TextModel: the error of the operation that ended last.
func (m *Model) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// Close implements inference.TextModel. Running operations end with ErrClosed,
// whether they are being read or not, and the process has exited when Close
// returns. A loop over tokens may call Close in its body. Requests that were sent
// through API or Server may take Settings.Timeouts.Drain to end.
func (m *Model) Close() error {
	m.close.Do(func() {
		m.end(ErrClosed)
		m.closeErr = m.srv.Close()
	})
	return m.closeErr
}

// Generate implements inference.TextModel.
func (m *Model) Generate(ctx context.Context, prompt string, opts ...inference.GenerateOption) iter.Seq[inference.Token] {
	return m.run(ctx, func() Request {
		return Request{Prompt: TextPrompt(prompt), GenerateConfig: inference.ApplyGenerateOpts(opts)}
	})
}

// Chat implements inference.TextModel with the model's own template. For a file
// without a template llama-server uses ChatML, which few such models were made
// for; Settings.ChatTemplateFile replaces the template.
func (m *Model) Chat(ctx context.Context, messages []inference.Message, opts ...inference.GenerateOption) iter.Seq[inference.Token] {
	return m.run(ctx, func() Request {
		return Request{Prompt: ChatPrompt(messages), GenerateConfig: inference.ApplyGenerateOpts(opts)}
	})
}

// run returns a loop over the tokens of a request. Each range over the loop sends
// the request again.
func (m *Model) run(ctx context.Context, req func() Request) iter.Seq[inference.Token] {
	return func(yield func(inference.Token) bool) {
		s := m.Stream(ctx, req())
		for t := range s.All() {
			if !yield(t) {
				break
			}
		}
	}
}

// FinishReason implements inference.FinishReporter: why the generation that ended
// last did. After a batch it returns FinishNone, unless the batch failed.
func (m *Model) FinishReason() inference.FinishReason {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.finish
}

// finishOf returns the reason of an end with an error, or of one that the caller
// left; FinishNone otherwise.
func finishOf(err error, left bool) inference.FinishReason {
	switch {
	case left, errors.Is(err, ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return inference.FinishCancelled
	case err != nil:
		return inference.FinishError
	}
	return inference.FinishNone
}

// record stores the result of an operation for Err, Metrics and FinishReason.
func (m *Model) record(err error, g inference.GenerateMetrics, finish inference.FinishReason) inference.GenerateMetrics {
	g.ActiveMemoryBytes = m.srv.usedMemory()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peak = max(m.peak, g.ActiveMemoryBytes)
	g.PeakMemoryBytes = m.peak
	m.err, m.metrics, m.finish = err, g, finish
	return g
}

// joinContexts returns a context that ends with the caller's or with the model.
func (m *Model) joinContexts(ctx context.Context) (context.Context, context.CancelFunc) {
	joined, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(m.life, func() { cancel(ErrClosed) })
	return joined, func() { stop(); cancel(context.Canceled) }
}

// translateError returns the caller's error for an error of a joined context.
func (m *Model) translateError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case m.life.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil:
		return withCause(ctx, ctx.Err())
	case errors.Is(err, llamaapi.ErrContextExceeded):
		return fmt.Errorf("%w: %w", ErrPromptTooLong, err)
	}
	return err
}

// withCause returns an error that wraps the error of ctx and its cause, too, where ctx
// has ended.
func withCause(ctx context.Context, err error) error {
	for _, ended := range []error{ctx.Err(), context.Cause(ctx)} {
		if err != nil && ended != nil && !errors.Is(err, ended) {
			err = fmt.Errorf("%w: %w", err, ended)
		}
	}
	return err
}

// metricsOf returns the contract's metrics of the server's last event.
func metricsOf(f llamaapi.Final, total time.Duration) inference.GenerateMetrics {
	t := f.Timings
	return inference.GenerateMetrics{
		PromptTokens: max(f.PromptTokens, t.PromptTokens+t.CachedTokens), GeneratedTokens: f.PredictedTokens,
		PrefillDuration: t.Prompt, DecodeDuration: t.Predicted, TotalDuration: total,
		PrefillTokensPerSec: finite(t.PromptPerSecond), DecodeTokensPerSec: finite(t.PredictedPerSecond),
	}
}

func finite(v float64) float64 {
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return 0
	}
	return v
}
