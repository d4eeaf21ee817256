// Package inference is a stand-in for dappco.re/go/inference, the later line of
// go-inference, whose methods return a core.Result instead of an error.
//
// It declares the types and functions that a text backend implements and a program uses,
// with the module's names and signatures, in a new implementation. Of the options that the
// later line added, it has those that change the generated text. It lacks those for tracing
// and probing, and the optional interfaces for training, state and serving.
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

// Message is one message of a conversation, possibly with media.
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
	ThinkingBudgetForced                           bool
}

// ModelInfo describes a loaded model.
type ModelInfo struct {
	Architecture                                            string
	VocabSize, NumLayers, HiddenSize, QuantBits, QuantGroup int
}

// TextModel is a loaded model. Classify returns []ClassifyResult, BatchGenerate
// []BatchResult. Err and Close return nil if there is no failure.
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

// Backend loads models; LoadModel returns a TextModel.
type Backend interface {
	Name() string
	LoadModel(path string, opts ...LoadOption) core.Result
	Available() bool
}
