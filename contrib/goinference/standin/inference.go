// Package inference stands in for forge.lthn.ai/core/go-inference, v0.1 line.
//
// It declares what a backend implements and what a program calls, with the
// names and signatures of that module; what stands behind them was written anew
// and does no more than the adapter's tests need. Discover and the training
// interfaces are not here: no backend implements them.
package inference

import (
	"context"
	"iter"
	"time"
)

// Token is a sampled token.
type Token struct {
	ID   int32
	Text string
}

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
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
}

// ModelInfo describes a loaded model.
type ModelInfo struct {
	Architecture                                            string
	VocabSize, NumLayers, HiddenSize, QuantBits, QuantGroup int
}

// TextModel is a loaded model.
type TextModel interface {
	Generate(ctx context.Context, prompt string, opts ...GenerateOption) iter.Seq[Token]
	Chat(ctx context.Context, messages []Message, opts ...GenerateOption) iter.Seq[Token]
	Classify(ctx context.Context, prompts []string, opts ...GenerateOption) ([]ClassifyResult, error)
	BatchGenerate(ctx context.Context, prompts []string, opts ...GenerateOption) ([]BatchResult, error)
	ModelType() string
	Info() ModelInfo
	Metrics() GenerateMetrics
	Err() error
	Close() error
}

// Backend loads models.
type Backend interface {
	Name() string
	LoadModel(path string, opts ...LoadOption) (TextModel, error)
	Available() bool
}
