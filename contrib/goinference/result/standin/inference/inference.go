// Package inference stands in for dappco.re/go/inference, the later line of
// go-inference, whose methods give a core.Result instead of an error.
//
// It declares what a text backend implements and what a program calls, with the
// names and signatures of that module; what stands behind them was written anew.
// Of the options that the later line added, those are here that change what is
// generated; the ones for tracing and probing, and the optional interfaces for
// training, state and serving, are not.
package inference

import (
	"context"
	"iter"
	"time"

	core "dappco.re/go"
)

// Token is a sampled token.
type Token struct {
	ID   int32
	Text string
}

// Message is one turn of a conversation, perhaps with media.
type Message struct {
	Role    string   `json:"role"`
	Content string   `json:"content"`
	Images  [][]byte `json:"images,omitempty"`
	Audios  [][]byte `json:"audios,omitempty"`
	Videos  [][]byte `json:"videos,omitempty"`
}

// ClassifyResult is the token sampled after one prompt.
type ClassifyResult struct {
	Token  Token
	Logits []float32
}

// BatchResult is what one prompt of a batch gave.
type BatchResult struct {
	Tokens []Token
	Err    error
}

// GenerateMetrics measures the last operation.
type GenerateMetrics struct {
	PromptTokens, GeneratedTokens                  int
	PrefillDuration, DecodeDuration, TotalDuration time.Duration
	PrefillTokensPerSec, DecodeTokensPerSec        float64
	PeakMemoryBytes, ActiveMemoryBytes             uint64
	ThinkingBudgetForced                           bool
}

// ModelInfo describes a loaded model.
type ModelInfo struct {
	Architecture                                            string
	VocabSize, NumLayers, HiddenSize, QuantBits, QuantGroup int
}

// TextModel is a loaded model. Classify gives []ClassifyResult, BatchGenerate
// []BatchResult; Err and Close give nil where there is no failure.
type TextModel interface {
	Generate(ctx context.Context, prompt string, opts ...GenerateOption) iter.Seq[Token]
	Chat(ctx context.Context, messages []Message, opts ...GenerateOption) iter.Seq[Token]
	Classify(ctx context.Context, prompts []string, opts ...GenerateOption) core.Result
	BatchGenerate(ctx context.Context, prompts []string, opts ...GenerateOption) core.Result
	ModelType() string
	Info() ModelInfo
	Metrics() GenerateMetrics
	Err() core.Result
	Close() core.Result
}

// Backend loads models; LoadModel gives a TextModel.
type Backend interface {
	Name() string
	LoadModel(path string, opts ...LoadOption) core.Result
	Available() bool
}
