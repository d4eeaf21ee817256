package result

import (
	"context"
	"iter"
	"sync"

	core "dappco.re/go"
	goinf "dappco.re/go/inference"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// Model implements go-inference's TextModel. All methods may be called
// concurrently.
type Model struct {
	m *rocm.Model

	mu      sync.Mutex
	err     error
	metrics inference.GenerateMetrics
}

var _ goinf.TextModel = (*Model)(nil)

// Wrap returns a go-inference model for a model of package rocm, which may have been loaded
// with settings that the contract lacks. Closing either closes both.
func Wrap(m *rocm.Model) *Model { return &Model{m: m} }

// ROCm returns the model of package rocm, with streams that have their own errors,
// embeddings, a tokenizer, grammars and media.
func (m *Model) ROCm() *rocm.Model { return m.m }

// Generate implements the contract. Without MaxTokens, it continues until the model ends the
// answer or the context is full.
func (m *Model) Generate(ctx context.Context, prompt string, opts ...goinf.GenerateOption) iter.Seq[goinf.Token] {
	return m.run(ctx, opts, func(r *rocm.Request) error {
		r.Prompt = rocm.TextPrompt(prompt)
		return nil
	})
}

// Chat implements the contract with the model's own template, which gets EnableThinking as
// enable_thinking. Images and audio need a model that was loaded with
// rocm.Settings.Projector, see Wrap.
func (m *Model) Chat(ctx context.Context, messages []goinf.Message, opts ...goinf.GenerateOption) iter.Seq[goinf.Token] {
	return m.run(ctx, opts, func(r *rocm.Request) error {
		list, err := mediaMessages(messages)
		r.Prompt = rocm.MediaChatPrompt(list)
		return err
	})
}

// run returns an iterator for a request. Each loop over it sends the request.
func (m *Model) run(ctx context.Context, opts []goinf.GenerateOption, fill func(*rocm.Request) error) iter.Seq[goinf.Token] {
	return func(yield func(goinf.Token) bool) {
		r, err := request(goinf.ApplyGenerateOpts(opts))
		if err == nil {
			err = fill(&r)
		}
		if err != nil {
			m.ended(err, inference.GenerateMetrics{})
			return
		}
		s := m.m.Stream(ctx, r)
		for t := range s.All() {
			if !yield(token(t)) {
				break
			}
		}
		m.ended(s.Err(), s.Metrics())
	}
}

// Classify implements the contract and returns []ClassifyResult. rocm.Model.Classify
// describes the logits.
func (m *Model) Classify(ctx context.Context, prompts []string, opts ...goinf.GenerateOption) core.Result {
	opt, err := plain(opts)
	if err != nil {
		m.ended(err, inference.GenerateMetrics{})
		return outcome(nil, err)
	}
	results, err := m.m.Classify(ctx, prompts, opt)
	m.ended(err, m.m.Metrics())
	out := make([]goinf.ClassifyResult, len(results))
	for i, r := range results {
		out[i] = goinf.ClassifyResult{Token: token(r.Token), Logits: r.Logits}
	}
	return outcome(out, err)
}

// BatchGenerate implements the contract and returns []BatchResult.
func (m *Model) BatchGenerate(ctx context.Context, prompts []string, opts ...goinf.GenerateOption) core.Result {
	opt, err := plain(opts)
	if err != nil {
		m.ended(err, inference.GenerateMetrics{})
		return outcome(nil, err)
	}
	results, err := m.m.BatchGenerate(ctx, prompts, opt)
	m.ended(err, m.m.Metrics())
	out := make([]goinf.BatchResult, len(results))
	for i, r := range results {
		out[i].Err = r.Err
		for _, t := range r.Tokens {
			out[i].Tokens = append(out[i].Tokens, token(t))
		}
	}
	return outcome(out, err)
}

// ModelType implements the contract. It returns the architecture.
func (m *Model) ModelType() string { return m.m.ModelType() }

// Info implements the contract.
func (m *Model) Info() goinf.ModelInfo {
	i := m.m.Info()
	return goinf.ModelInfo{
		Architecture: i.Architecture, VocabSize: i.VocabSize, NumLayers: i.NumLayers,
		HiddenSize: i.HiddenSize, QuantBits: i.QuantBits, QuantGroup: i.QuantGroup,
	}
}

// Metrics implements the contract, see rocm.Model.Metrics.
func (m *Model) Metrics() goinf.GenerateMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.metrics
	return goinf.GenerateMetrics{
		PromptTokens: g.PromptTokens, GeneratedTokens: g.GeneratedTokens,
		PrefillDuration: g.PrefillDuration, DecodeDuration: g.DecodeDuration, TotalDuration: g.TotalDuration,
		PrefillTokensPerSec: g.PrefillTokensPerSec, DecodeTokensPerSec: g.DecodeTokensPerSec,
		PeakMemoryBytes: g.PeakMemoryBytes, ActiveMemoryBytes: g.ActiveMemoryBytes,
	}
}

// Err implements the contract.
func (m *Model) Err() core.Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	return outcome(nil, m.err)
}

// Close implements the contract.
func (m *Model) Close() core.Result { return outcome(nil, m.m.Close()) }

// ended records the end of an operation for Err and Metrics. The model of package rocm does
// not see a rejected operation.
func (m *Model) ended(err error, g inference.GenerateMetrics) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err, m.metrics = err, g
}

func token(t inference.Token) goinf.Token { return goinf.Token{ID: t.ID, Text: t.Text} }
