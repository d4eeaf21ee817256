package inference

import (
	"context"
	"iter"
	"time"
)

// Token is one step of a generation.
type Token struct {
	// ID is the token's number in the model's vocabulary.
	ID int32
	// Text is the UTF-8 text that became complete with this token. It is empty if the token
	// has only a part of a rune; the token that completes the rune has all of it.
	Text string
}

// Message is one turn of a conversation.
type Message struct {
	// Role is "system", "user" or "assistant".
	Role string `json:"role"`
	// Content is the text of the turn.
	Content string `json:"content"`
}

// ClassifyResult is the result of one prompt after a single prefill.
type ClassifyResult struct {
	// Token is the token sampled at the last position of the prompt.
	Token Token
	// Logits has one value per vocabulary entry, indexed by token id. It is nil
	// unless WithLogits was given.
	Logits []float32
}

// BatchResult is the result of one prompt of a batch.
type BatchResult struct {
	// Tokens are the generated tokens in order, also those that came before Err.
	Tokens []Token
	// Err is the failure of this prompt; the other prompts are not affected.
	Err error
}

// GenerateMetrics describes the last operation of a model.
type GenerateMetrics struct {
	// PromptTokens counts the tokens of the prompt, GeneratedTokens those sampled.
	PromptTokens, GeneratedTokens int
	// PrefillDuration is the time spent on the prompt, DecodeDuration the time
	// spent sampling, TotalDuration the wall time of the whole call.
	PrefillDuration, DecodeDuration, TotalDuration time.Duration
	// PrefillTokensPerSec and DecodeTokensPerSec are tokens per second of the two phases.
	PrefillTokensPerSec, DecodeTokensPerSec float64
	// PeakMemoryBytes and ActiveMemoryBytes are accelerator memory in bytes, 0
	// where the backend cannot know it.
	PeakMemoryBytes, ActiveMemoryBytes uint64
}

// ModelInfo describes a loaded model.
type ModelInfo struct {
	// Architecture is the model family, for example "gemma3" or "llama".
	Architecture string
	// VocabSize is the number of entries in the vocabulary.
	VocabSize int
	// NumLayers is the number of transformer blocks.
	NumLayers int
	// HiddenSize is the width of the residual stream.
	HiddenSize int
	// QuantBits is the number of bits of a quantised weight, 0 when it is not known.
	QuantBits int
	// QuantGroup is the number of weights that share a scale, 0 when there is none.
	QuantGroup int
}

// TextModel is a loaded model. All methods may be called concurrently.
type TextModel interface {
	// Generate yields tokens that continue the prompt. The loop ends when the model ends, when
	// MaxTokens is reached, when a stop token is sampled (it is not yielded), when ctx ends, on
	// failure, or when the caller breaks out of it. Err after the loop distinguishes a failure
	// from an end.
	Generate(ctx context.Context, prompt string, opts ...GenerateOption) iter.Seq[Token]

	// Chat formats the messages with the model's own template and yields the
	// reply, under the same rules as Generate.
	Chat(ctx context.Context, messages []Message, opts ...GenerateOption) iter.Seq[Token]

	// Classify runs one prefill per prompt and samples one token for each, in
	// the order of the prompts. WithLogits also returns the logits.
	Classify(ctx context.Context, prompts []string, opts ...GenerateOption) ([]ClassifyResult, error)

	// BatchGenerate continues all prompts and returns the results in their
	// order. A failure of one prompt is in its BatchResult; the error returned is
	// a failure of the whole batch.
	BatchGenerate(ctx context.Context, prompts []string, opts ...GenerateOption) ([]BatchResult, error)

	// ModelType is the model family, the same as Info().Architecture.
	ModelType() string

	// Info describes the model.
	Info() ModelInfo

	// Metrics speaks of the last operation. It is valid once the iterator of
	// that operation is exhausted; with concurrent calls the last to end wins.
	Metrics() GenerateMetrics

	// Err is the failure of the last Generate or Chat, nil if it ended well.
	// With concurrent calls the last to end wins.
	Err() error

	// Close frees the model. Loops that still run end with an error; calling
	// Close again does nothing.
	Close() error
}

// Backend loads models. A backend registers itself with Register.
type Backend interface {
	// Name is the name used by WithBackend, for example "rocm".
	Name() string
	// LoadModel loads the model at path.
	LoadModel(path string, opts ...LoadOption) (TextModel, error)
	// Available reports whether the backend can run on this machine.
	Available() bool
}

// AttentionSnapshot holds the keys (and perhaps the queries) of every layer
// after one prefill. The innermost slices are SeqLen*HeadDim values, row-major by position.
type AttentionSnapshot struct {
	NumLayers     int `json:"num_layers"`
	NumHeads      int `json:"num_heads"` // key/value heads
	SeqLen        int `json:"seq_len"`
	HeadDim       int `json:"head_dim"`
	NumQueryHeads int `json:"num_query_heads,omitempty"`
	// Keys is indexed by layer, head, then position*HeadDim+dimension.
	Keys [][][]float32 `json:"keys"`
	// Queries has the same shape with NumQueryHeads heads, nil when they were not captured.
	Queries      [][][]float32 `json:"queries,omitempty"`
	Architecture string        `json:"architecture"`
}

// HasQueries reports whether the snapshot carries queries beside the keys.
func (s *AttentionSnapshot) HasQueries() bool {
	return s != nil && len(s.Queries) > 0
}

// AttentionInspector is an optional interface of a TextModel. A backend that
// cannot show attention does not implement it.
type AttentionInspector interface {
	// InspectAttention prefills the prompt and returns the attention state.
	InspectAttention(ctx context.Context, prompt string, opts ...GenerateOption) (*AttentionSnapshot, error)
}
