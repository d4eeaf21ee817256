package goinference

import (
	"context"
	"iter"

	goinf "forge.lthn.ai/core/go-inference"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
)

// Model implements go-inference's TextModel. All methods may be called
// concurrently.
type Model struct{ m *rocm.Model }

var _ goinf.TextModel = (*Model)(nil)

// Wrap returns a go-inference model for a model of package rocm, which may have been loaded
// with settings that the contract lacks. Closing either closes both.
func Wrap(m *rocm.Model) *Model { return &Model{m} }

// ROCm returns the model of package rocm, with streams that have their own errors,
// embeddings, a tokenizer and grammars.
func (m *Model) ROCm() *rocm.Model { return m.m }

// Generate implements the contract.
func (m *Model) Generate(ctx context.Context, prompt string, opts ...goinf.GenerateOption) iter.Seq[goinf.Token] {
	return tokens(m.m.Generate(ctx, prompt, generate(opts)))
}

// Chat implements the contract with the model's own template.
func (m *Model) Chat(ctx context.Context, messages []goinf.Message, opts ...goinf.GenerateOption) iter.Seq[goinf.Token] {
	converted := make([]inference.Message, len(messages))
	for i, t := range messages {
		converted[i] = inference.Message{Role: t.Role, Content: t.Content}
	}
	return tokens(m.m.Chat(ctx, converted, generate(opts)))
}

// Classify implements the contract. rocm.Model.Classify describes the logits.
func (m *Model) Classify(ctx context.Context, prompts []string, opts ...goinf.GenerateOption) ([]goinf.ClassifyResult, error) {
	results, err := m.m.Classify(ctx, prompts, generate(opts))
	if err != nil {
		return nil, err
	}
	out := make([]goinf.ClassifyResult, len(results))
	for i, r := range results {
		out[i] = goinf.ClassifyResult{Token: token(r.Token), Logits: r.Logits}
	}
	return out, nil
}

// BatchGenerate implements the contract. It can return results and an error: each
// unfinished prompt has an error of its own.
func (m *Model) BatchGenerate(ctx context.Context, prompts []string, opts ...goinf.GenerateOption) ([]goinf.BatchResult, error) {
	results, err := m.m.BatchGenerate(ctx, prompts, generate(opts))
	out := make([]goinf.BatchResult, len(results))
	for i, r := range results {
		out[i].Err = r.Err
		for _, t := range r.Tokens {
			out[i].Tokens = append(out[i].Tokens, token(t))
		}
	}
	return out, err
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
	g := m.m.Metrics()
	return goinf.GenerateMetrics{
		PromptTokens: g.PromptTokens, GeneratedTokens: g.GeneratedTokens,
		PrefillDuration: g.PrefillDuration, DecodeDuration: g.DecodeDuration, TotalDuration: g.TotalDuration,
		PrefillTokensPerSec: g.PrefillTokensPerSec, DecodeTokensPerSec: g.DecodeTokensPerSec,
		PeakMemoryBytes: g.PeakMemoryBytes, ActiveMemoryBytes: g.ActiveMemoryBytes,
	}
}

// Err implements the contract.
func (m *Model) Err() error { return m.m.Err() }

// Close implements the contract.
func (m *Model) Close() error { return m.m.Close() }

// generate returns one option for the resolved options of go-inference, so that its defaults
// apply even if those of pkg/inference differ. It lists the fields one by one, so that it
// compiles with a release that adds some.
func generate(opts []goinf.GenerateOption) inference.GenerateOption {
	c := goinf.ApplyGenerateOpts(opts)
	return func(to *inference.GenerateConfig) {
		*to = inference.GenerateConfig{
			MaxTokens: c.MaxTokens, Temperature: c.Temperature, TopK: c.TopK, TopP: c.TopP,
			StopTokens: c.StopTokens, RepeatPenalty: c.RepeatPenalty, ReturnLogits: c.ReturnLogits,
		}
	}
}

func token(t inference.Token) goinf.Token { return goinf.Token{ID: t.ID, Text: t.Text} }

func tokens(from iter.Seq[inference.Token]) iter.Seq[goinf.Token] {
	return func(yield func(goinf.Token) bool) {
		for t := range from {
			if !yield(token(t)) {
				return
			}
		}
	}
}
