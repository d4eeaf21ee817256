package rocm

import (
	"context"
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
// the other methods go beyond it. All methods may be called concurrently.
type Model struct {
	srv   *Server
	api   *llamaapi.Client
	slots int
	// props are the server's, asked for when media are first spoken of.
	props atomic.Pointer[llamaapi.Props]
	// adapters is how many LoRA adapters the server has, once that was asked.
	adapters atomic.Pointer[int]

	// life ends with Close and with it every operation.
	life  context.Context //nolint:containedctx // the life of the model itself
	end   context.CancelCauseFunc
	close sync.Once
	gone  error

	mu      sync.Mutex
	err     error
	metrics inference.GenerateMetrics
	peak    uint64
}

var _ inference.TextModel = (*Model)(nil)

func newModel(ctx context.Context, srv *Server) (*Model, error) {
	m := &Model{srv: srv, api: llamaapi.New(srv.Child.BaseURL(), srv.Child.HTTPClient())}
	var err error
	if m.slots, err = m.settle(ctx); err != nil {
		return nil, fmt.Errorf("load %s: %w", srv.Path, err)
	}
	m.life, m.end = context.WithCancelCause(context.Background())
	m.peak = srv.memory()
	return m, nil
}

// settle waits for the loop that decodes, which llama-server enters after it has
// said that it is ready, and gives the number of slots. Asked to end in between,
// it would forget that and have to be killed after StopTimeout: start_loop sets
// what terminate has cleared (server-queue.cpp). /slots is answered by that loop.
// A server that does not show its slots tells their number in /props; if the loop
// does not answer, the first request meets the reason.
func (m *Model) settle(ctx context.Context) (slots int, err error) {
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

// Server is what the model stands on: process, plan and paths.
func (m *Model) Server() *Server { return m.srv }

// API is the client of the model's llama-server, for what this package does not
// offer itself.
func (m *Model) API() *llamaapi.Client { return m.api }

// Slots is how many sequences are decoded together.
func (m *Model) Slots() int { return m.slots }

// ModelType implements inference.TextModel: the architecture.
func (m *Model) ModelType() string { return m.srv.Info.Architecture }

// Info implements inference.TextModel, from the model's header.
func (m *Model) Info() inference.ModelInfo { return m.srv.Info }

// Metrics implements inference.TextModel. Times are the server's own;
// PromptTokens counts those found in the cache too, while PrefillTokensPerSec
// speaks of the computed ones. A generation that was left before its end, by a
// break, a context or Close, has counts and TotalDuration, but no other times: the
// server tells them in its final event. Memory is what is used on the GPUs of the plan.
func (m *Model) Metrics() inference.GenerateMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.metrics
}

// Err implements inference.TextModel.
func (m *Model) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// Close implements inference.TextModel: what runs ends with ErrClosed, whether it
// is being read or not, and the process is gone when it returns. A loop over
// tokens may call it in its body. What was asked through API or the Server alone
// has Settings.DrainTimeout to end.
func (m *Model) Close() error {
	m.close.Do(func() {
		m.end(ErrClosed)
		m.gone = m.srv.Close()
	})
	return m.gone
}

// Generate implements inference.TextModel.
func (m *Model) Generate(ctx context.Context, prompt string, opts ...inference.GenerateOption) iter.Seq[inference.Token] {
	return m.run(ctx, func() Request { return Request{Prompt: prompt, GenerateConfig: inference.ApplyGenerateOpts(opts)} })
}

// Chat implements inference.TextModel with the model's own template. For a file
// without one llama-server takes ChatML, which few such models were made for:
// Settings.ChatTemplateFile names another.
func (m *Model) Chat(ctx context.Context, messages []inference.Message, opts ...inference.GenerateOption) iter.Seq[inference.Token] {
	if messages == nil {
		messages = []inference.Message{} // a chat all the same, and an empty one
	}
	return m.run(ctx, func() Request {
		return Request{Messages: messages, GenerateConfig: inference.ApplyGenerateOpts(opts)}
	})
}

// run makes a loop of a request; each ranging over it sends the request anew.
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

// ended notes the end of an operation for Err and Metrics.
func (m *Model) ended(err error, g inference.GenerateMetrics) inference.GenerateMetrics {
	g.ActiveMemoryBytes = m.srv.memory()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peak = max(m.peak, g.ActiveMemoryBytes)
	g.PeakMemoryBytes = m.peak
	m.err, m.metrics = err, g
	return g
}

// during joins the caller's context with the model's life.
func (m *Model) during(ctx context.Context) (context.Context, context.CancelFunc) {
	joined, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(m.life, func() { cancel(ErrClosed) })
	return joined, func() { stop(); cancel(context.Canceled) }
}

// explain makes the caller's error of one that came through during's context.
func (m *Model) explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case m.life.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return err
}

// metricsOf translates the server's measurements.
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
