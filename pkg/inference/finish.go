package inference

import "errors"

// ErrPromptTooLong reports that a prompt does not fit into the model's context.
// Errors of a backend wrap it; shorten the prompt, or load the model with a longer
// context.
var ErrPromptTooLong = errors.New("prompt is longer than the context")

// FinishReason is why a generation ended.
type FinishReason string

// The reasons why a generation ends.
const (
	FinishNone      FinishReason = ""          // it has not ended, or there was none
	FinishStop      FinishReason = "stop"      // the model ended it, or a stop token or stop text did
	FinishLength    FinishReason = "length"    // MaxTokens was reached
	FinishContext   FinishReason = "context"   // the context was full
	FinishCancelled FinishReason = "cancelled" // the caller left, the context ended, or the model was closed
	FinishError     FinishReason = "error"     // it failed; Err has the cause
)

// FinishReporter is an optional interface of a TextModel.
type FinishReporter interface {
	// FinishReason returns why the last Generate or Chat ended. Like Err, it is
	// valid once the iterator is exhausted.
	FinishReason() FinishReason
}
