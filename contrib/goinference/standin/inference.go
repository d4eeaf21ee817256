// Package inference is a stand-in for forge.lthn.ai/core/go-inference, v0.1 line.
//
// It declares the types and functions that a backend implements and a program uses, with the
// module's names and signatures. The implementation is new and limited to what the adapter's
// tests need. It has no Discover and no training interfaces, because no backend implements
// them.
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

// Message is one message of a conversation.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// ClassifyResult is the token sampled after one prompt.
type ClassifyResult struct {
	Token  Token
	Logits []float32
}

// BatchResult is the result of one prompt of a batch.
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
