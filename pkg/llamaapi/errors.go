package llamaapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Sentinel errors, for errors.Is. An error that the server reported is an
// *APIError that matches one of them.
var (
	// ErrTruncated means that the stream ended before the server's final event: the
	// server died or the connection was cut.
	ErrTruncated = errors.New("llama-server stream ended before its final event")
	// ErrEventTooLarge means that an event or a response exceeded WithMaxEventBytes.
	ErrEventTooLarge = errors.New("llama-server event is too large")
	// ErrMalformed means that the response is not one that llama-server sends.
	ErrMalformed = errors.New("llama-server sent a malformed response")
	// ErrLoading means that the model is not loaded yet (503); retry later.
	ErrLoading = errors.New("llama-server is still loading the model")
	// ErrContextExceeded means that the prompt does not fit into the slot's context.
	ErrContextExceeded = errors.New("prompt is longer than the context")
	// ErrUnauthorized means that the API key is missing or wrong (401).
	ErrUnauthorized = errors.New("llama-server rejected the API key")
	// ErrNotSupported means that the server was started without the feature (501,
	// or media sent to one without a projector for them).
	ErrNotSupported = errors.New("llama-server was started without this feature")
	// ErrNotPooled means that the server returned a vector per token instead of one
	// per text; start the server with --pooling mean, cls or last.
	ErrNotPooled = errors.New("llama-server did not return one vector per text")
	// ErrInvalidRequest means that the server rejected the request (400).
	ErrInvalidRequest = errors.New("llama-server rejected the request")
	// ErrMedia means that the server could not decode an image or audio file.
	ErrMedia = errors.New("llama-server could not decode an image or audio file")
	// ErrClosed means that the caller closed the stream.
	ErrClosed = errors.New("stream is closed")
)

// APIError is an error that the server reported in an HTTP response or a stream.
type APIError struct {
	// Status is the HTTP status, or the code of an error in a stream.
	Status int
	// Type is the server's error type, for example "invalid_request_error"; empty if
	// the response was not the server's error object.
	Type string
	// Message is the server's text, or the beginning of any other response.
	Message string
	// PromptTokens and ContextLen are in tokens and set only for ErrContextExceeded.
	PromptTokens, ContextLen int
}

// Error returns the message with type and status, and a remedy where there is one.
func (e *APIError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "llama-server: %s", e.Message)
	if e.Type != "" {
		fmt.Fprintf(&b, " (%s, status %d)", e.Type, e.Status)
	} else {
		fmt.Fprintf(&b, " (status %d)", e.Status)
	}
	if e.Status == http.StatusRequestEntityTooLarge {
		b.WriteString(": the request exceeds the limit of 100 MiB; shorten it, or split it into several requests")
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

// Messages of server-common.cpp that are more specific than their type:
// process_mtmd_prompt, tokenize_input_subprompt and oaicompat_chat_params_parse
// reject media with them.
const (
	msgTooLong          = "is too large to process" // of an embedding or a reranking (server-context.cpp)
	msgUndecodable      = "Failed to load image or audio file"
	msgNotMultimodal    = "does not support multimodal requests"
	msgUnsupportedMedia = " input is not supported - hint: "
)

// Is reports whether target is the sentinel for the error's type and status.
func (e *APIError) Is(target error) bool {
	switch target {
	case ErrContextExceeded:
		return e.Type == typeContext || strings.Contains(e.Message, msgTooLong)
	case ErrLoading:
		// fail_on_no_slot has the same type and another message.
		return e.Status == http.StatusServiceUnavailable && (e.Type != typeUnavailable || strings.HasPrefix(e.Message, "Loading"))
	case ErrUnauthorized:
		return e.Status == http.StatusUnauthorized
	case ErrNotSupported:
		return e.Type == typeNotSupported || e.Status == http.StatusNotImplemented ||
			strings.Contains(e.Message, msgNotMultimodal) || strings.Contains(e.Message, msgUnsupportedMedia)
	case ErrMedia:
		return strings.HasPrefix(e.Message, msgUndecodable)
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

func (b errorBody) apiError(status int) *APIError {
	if status == 0 || status == http.StatusOK {
		status = b.Code
	}
	return &APIError{Status: status, Type: b.Type, Message: b.Message, PromptTokens: b.PromptTokens, ContextLen: b.ContextLen}
}

// maxForeignError limits how much of an unknown error page a message quotes.
const maxForeignError = 200

// parseError returns the error in the body of a response whose status is not 200.
func parseError(status int, body []byte) *APIError {
	var wrapped struct {
		Error *errorBody `json:"error"`
	}
	if json.Unmarshal(body, &wrapped) == nil && wrapped.Error != nil && wrapped.Error.Message != "" {
		return wrapped.Error.apiError(status)
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
