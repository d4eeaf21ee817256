package llamaapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Conditions, to be tested with errors.Is. Those that the server reports arrive
// as an *APIError that matches one of them.
var (
	// ErrTruncated means that the stream ended without the server's final event:
	// the server died, or something between cut the connection.
	ErrTruncated = errors.New("llama-server stream ended before its final event")
	// ErrEventTooLarge means that one event was larger than WithMaxEventBytes allows.
	ErrEventTooLarge = errors.New("llama-server event is too large")
	// ErrMalformed means that the answer was not what llama-server sends.
	ErrMalformed = errors.New("llama-server sent a malformed answer")
	// ErrLoading means that the model is not loaded yet (503); try again later.
	ErrLoading = errors.New("llama-server is still loading the model")
	// ErrContextExceeded means that the prompt does not fit the slot's context.
	ErrContextExceeded = errors.New("prompt is longer than the context")
	// ErrUnauthorized means that the API key is missing or wrong (401).
	ErrUnauthorized = errors.New("llama-server refused the api key")
	// ErrNotSupported means that the server was started without the feature (501,
	// or media sent to one without a projector for them).
	ErrNotSupported = errors.New("llama-server was started without this feature")
	// ErrNotPooled means that the server gave a vector for each token and not one for
	// the text; start it with --pooling mean, cls or last.
	ErrNotPooled = errors.New("llama-server did not make one vector of each text")
	// ErrInvalidRequest means that the server did not accept the request (400).
	ErrInvalidRequest = errors.New("llama-server did not accept the request")
	// ErrMedia means that the server could not decode an image or a sound.
	ErrMedia = errors.New("llama-server could not decode a medium")
	// ErrClosed means that the stream was closed by its user.
	ErrClosed = errors.New("stream is closed")
)

// APIError is an error that the server reported, as an HTTP answer or inside a stream.
type APIError struct {
	// Status is the HTTP status, or the code that an error inside a stream carries.
	Status int
	// Type is the server's error type, for example "invalid_request_error"; empty
	// when the answer was not the server's error object.
	Type string
	// Message is the server's text, or the beginning of a foreign answer.
	Message string
	// PromptTokens and ContextLen are set for ErrContextExceeded alone, in tokens.
	PromptTokens, ContextLen int
}

// Error gives status, type and message.
func (e *APIError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "llama-server: %s", e.Message)
	if e.Type != "" {
		fmt.Fprintf(&b, " (%s, status %d)", e.Type, e.Status)
	} else {
		fmt.Fprintf(&b, " (status %d)", e.Status)
	}
	if e.Status == http.StatusRequestEntityTooLarge {
		b.WriteString(": the request is larger than 100 MiB, which is what the server takes; shorten it, or send its parts one by one")
	}
	if e.Type == typeContext {
		fmt.Fprintf(&b, ": %d prompt tokens, context of %d; shorten the prompt or load with a longer context",
			e.PromptTokens, e.ContextLen)
	}
	return b.String()
}

// Error types of format_error_response in server-common.cpp.
const (
	typeContext      = "exceed_context_size_error"
	typeUnavailable  = "unavailable_error"
	typeNotSupported = "not_supported_error"
)

// Messages of server-common.cpp that tell more than their type: how
// process_mtmd_prompt, tokenize_input_subprompt and oaicompat_chat_params_parse
// refuse media.
const (
	saysUndecoded   = "Failed to load image or audio file"
	saysNoMedia     = "does not support multimodal requests"
	saysNoSuchMedia = " input is not supported - hint: "
)

// Is matches the condition that the server's type and status stand for.
func (e *APIError) Is(target error) bool {
	switch target {
	case ErrContextExceeded:
		return e.Type == typeContext
	case ErrLoading:
		// The same type also answers fail_on_no_slot, with another message.
		return e.Status == http.StatusServiceUnavailable && (e.Type != typeUnavailable || strings.HasPrefix(e.Message, "Loading"))
	case ErrUnauthorized:
		return e.Status == http.StatusUnauthorized
	case ErrNotSupported:
		return e.Type == typeNotSupported || e.Status == http.StatusNotImplemented ||
			strings.Contains(e.Message, saysNoMedia) || strings.Contains(e.Message, saysNoSuchMedia)
	case ErrMedia:
		return strings.HasPrefix(e.Message, saysUndecoded)
	case ErrInvalidRequest:
		return e.Status == http.StatusBadRequest
	}
	return false
}

// errorBody is the server's error object.
type errorBody struct {
	Code         int    `json:"code"`
	Message      string `json:"message"`
	Type         string `json:"type"`
	PromptTokens int    `json:"n_prompt_tokens"`
	ContextLen   int    `json:"n_ctx"`
}

func (b errorBody) asError(status int) *APIError {
	if status == 0 || status == http.StatusOK {
		status = b.Code
	}
	return &APIError{Status: status, Type: b.Type, Message: b.Message, PromptTokens: b.PromptTokens, ContextLen: b.ContextLen}
}

// maxForeignError bounds how much of an unknown error page goes into a message.
const maxForeignError = 200

// parseError makes an error of the body of an answer that is not 200.
func parseError(status int, body []byte) *APIError {
	var wrapped struct {
		Error *errorBody `json:"error"`
	}
	if json.Unmarshal(body, &wrapped) == nil && wrapped.Error != nil && wrapped.Error.Message != "" {
		return wrapped.Error.asError(status)
	}
	text := strings.TrimSpace(string(body))
	if len(text) > maxForeignError {
		text = strings.ToValidUTF8(text[:maxForeignError], "") + "…"
	}
	if text == "" {
		text = http.StatusText(status)
	}
	return &APIError{Status: status, Message: text}
}
