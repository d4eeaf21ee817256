package gateway

import (
	"encoding/json"
	"errors"
	"net/http"
)

// The reasons for which a request's body is rejected.
var (
	errTooLarge    = errors.New("the request is larger than 100 MiB, the limit of llama-server; send less")
	errTooDeep     = errors.New("the JSON is nested more than 1000 levels deep, which can crash llama-server; nest it less")
	errEncoded     = errors.New("the body must be plain JSON (a multipart form for transcriptions), not compressed")
	errForm        = errors.New("the body is not a multipart form")
	errTooSlow     = errors.New("the body arrived too slowly; send it faster or send less")
	errBusy        = errors.New("too many requests are running or waiting; retry later")
	errNotJSON     = errors.New("the body is not a single JSON value")
	errRemoteMedia = errors.New("remote media are not fetched; send the image or sound inline as data:image/png;base64,…")
)

// invalidBody returns the errors that are answered 400.
func invalidBody() []error {
	return []error{errTooDeep, errEncoded, errForm, errNotJSON, errRemoteMedia, errField, errDuplicate, errGrammar}
}

// bodyErrors returns all of them.
func bodyErrors() []error { return append(invalidBody(), errTooLarge, errTooSlow, errBusy) }

// statusFor returns the HTTP status for an error in a request's body, 0 for other
// errors.
func statusFor(err error) int {
	switch {
	case errors.Is(err, errTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, errTooSlow):
		return http.StatusRequestTimeout
	case errors.Is(err, errBusy):
		return http.StatusTooManyRequests
	}
	for _, bad := range invalidBody() {
		if errors.Is(err, bad) {
			return http.StatusBadRequest
		}
	}
	return 0
}

// bodyReason returns the text of an error in a request's body without what it quotes
// of the body.
func bodyReason(err error) string {
	for _, bad := range bodyErrors() {
		if errors.Is(err, bad) {
			return bad.Error()
		}
	}
	return "the body could not be read"
}

// writeError answers with an error object as OpenAI's API and llama-server have
// it.
func writeError(w http.ResponseWriter, status int, kind, message string) {
	raw, err := json.Marshal(errorObject(status, kind, message))
	if err != nil {
		raw = []byte(`{}`)
	}
	noteError(w, status, message)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(raw)
}

func errorObject(status int, kind, message string) map[string]any {
	return map[string]any{"error": map[string]any{"message": message, "type": kind, "code": status}}
}

// writeBusy answers 429: the client is to wait.
func writeBusy(w http.ResponseWriter, err error) {
	w.Header().Set("Retry-After", "5")
	writeError(w, http.StatusTooManyRequests, "rate_limit_error", err.Error())
}

// writeLoading answers a request that came before the model was loaded.
func writeLoading(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	writeError(w, http.StatusServiceUnavailable, "unavailable_error", "Loading model")
}
