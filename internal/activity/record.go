package activity

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Stage is how far a request is.
type Stage string

// The stages of a request, in their order.
const (
	// Waiting requests have no slot yet: the model loads, or others run.
	Waiting Stage = "waiting"
	// Prompt requests were sent to llama-server, which has not answered yet.
	Prompt Stage = "prompt"
	// Generating requests have part of their answer.
	Generating Stage = "generating"
	// Done requests have ended; Record.Outcome says how.
	Done Stage = "done"
)

// Outcome is how a request ended.
type Outcome string

// The outcomes of requests.
const (
	// OK requests were answered whole.
	OK Outcome = "ok"
	// ClientLeft: the client closed its connection before the answer was whole.
	ClientLeft Outcome = "client-left"
	// NotAllowed: the key is missing, wrong, or must not do that.
	NotAllowed Outcome = "not-allowed"
	// Rejected: the request is not valid, or names what does not exist.
	Rejected Outcome = "rejected"
	// Limited: a limit of the key, or of the queue, is reached.
	Limited Outcome = "limited"
	// Unavailable: the model is not there, cannot be loaded, or does not fit.
	Unavailable Outcome = "unavailable"
	// TimedOut: the answer took too long, or grew too large.
	TimedOut Outcome = "timed-out"
	// Crashed: llama-server exited or hung while it handled the request.
	Crashed Outcome = "crashed"
	// Failed: llama-server answered with an error, or not at all.
	Failed Outcome = "failed"
)

// Outcomes returns all outcomes.
func Outcomes() []Outcome {
	return []Outcome{OK, ClientLeft, NotAllowed, Rejected, Limited, Unavailable, TimedOut, Crashed, Failed}
}

// Record describes a request. It has no body, and no key but its name.
type Record struct {
	// Seq numbers the requests of a Log, from 1. ID is the value of the header
	// X-Request-Id in the answer.
	Seq uint64 `json:"seq"`
	ID  string `json:"id"`
	// Time is when the request arrived.
	Time time.Time `json:"time"`
	// Route is a route of the service, such as "/v1/chat/completions" or
	// "/v1/models/{name}", or "other".
	Route  string `json:"route"`
	Method string `json:"method"`
	// Model is the name of the model, never an alias; "": not known yet, or none.
	Model string `json:"model"`
	// Key is the name of a key with limits; "": another key, or none.
	Key string `json:"key"`
	// Stage and Outcome say how far the request is and how it ended. Why is a
	// sentence where it did not end well.
	Stage   Stage   `json:"stage"`
	Outcome Outcome `json:"outcome,omitempty"`
	Why     string  `json:"why,omitempty"`
	// Status is the HTTP status of the answer, 0 before it begins. An error that a
	// client got as an event of a stream has the status that it would have had.
	Status int `json:"status"`
	// PromptTokens are those of the prompt, of which CachedTokens were computed for
	// an earlier request. While a request runs, GeneratedTokens counts the pieces of
	// its stream.
	PromptTokens    int64 `json:"prompt_tokens"`
	CachedTokens    int64 `json:"cached_tokens"`
	GeneratedTokens int64 `json:"generated_tokens"`
	// WaitSeconds is how long the request waited for its model and a slot,
	// FirstTokenSeconds how long from its arrival until the first token, 0: not
	// known. Seconds is the time from its arrival to its end, or to now.
	WaitSeconds       float64 `json:"wait_seconds"`
	FirstTokenSeconds float64 `json:"first_token_seconds"`
	Seconds           float64 `json:"seconds"`
	// TokensPerSecond is the rate of generation, after the first token.
	TokensPerSecond float64 `json:"tokens_per_second"`
	// Stream reports whether the client asked for a stream.
	Stream bool `json:"stream"`
	// Bytes is the size of the answer.
	Bytes int64 `json:"bytes"`
}

// maxText limits a text of a record, in bytes.
const maxText = 300

// Clean returns a text in one line of printable characters, no longer than 300
// bytes.
func Clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	if len(text) <= maxText {
		return text
	}
	cut := maxText - len("…")
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
