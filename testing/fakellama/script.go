package fakellama

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// EnvScript is the environment variable from which cmd/fakellama reads its script.
const EnvScript = "FAKELLAMA_SCRIPT"

// Script says what the server is and what goes wrong with it. The zero value is
// a healthy server with one slot.
type Script struct {
	// Slots is how many completions run side by side (1 when 0); more wait.
	Slots int `json:"slots,omitempty"`
	// ContextLen is the context of a slot in tokens (4096 when 0).
	ContextLen int `json:"context_len,omitempty"`
	// APIKey is asked for when it is not empty.
	APIKey string `json:"api_key,omitempty"`
	// ModelPath and Alias are what /props tells.
	ModelPath string `json:"model_path,omitempty"`
	Alias     string `json:"alias,omitempty"`
	// TemplateError makes /apply-template fail with that text.
	TemplateError string `json:"template_error,omitempty"`
	// Alternate makes the template refuse a conversation in which, behind a system
	// message, user and assistant do not take turns, as those of Gemma and Mistral do.
	Alternate bool `json:"alternate,omitempty"`
	// Adapters are the LoRA files that the server was started with.
	Adapters []string `json:"adapters,omitempty"`
	// Vision lets it read images (PNG, JPEG, GIF), as a projector does: each is
	// ImageTokens tokens, on which what it says depends.
	Vision bool `json:"vision,omitempty"`
	// MediaMarker stands for an image in a prompt; empty: another one for each
	// server, as llama-server does it.
	MediaMarker string `json:"media_marker,omitempty"`
	// Embeddings, Reranking and SlotSave switch the endpoints on, as flags do.
	Embeddings bool `json:"embeddings,omitempty"`
	Reranking  bool `json:"reranking,omitempty"`
	SlotSave   bool `json:"slot_save,omitempty"`

	// Reply is the whole answer to every prompt; empty lets the model babble.
	Reply string `json:"reply,omitempty"`
	// Tokens of a reply come this far apart, the prompt takes PromptDelay.
	TokenDelay  time.Duration `json:"token_delay,omitempty"`
	PromptDelay time.Duration `json:"prompt_delay,omitempty"`
	// PromptBusy lets a core compute for PromptDelay, as a slow one would.
	PromptBusy bool `json:"prompt_busy,omitempty"`
	// NeverEnds keeps the model from ending by itself.
	NeverEnds bool `json:"never_ends,omitempty"`
	// PingEvery sends an SSE comment before every so many tokens.
	PingEvery int `json:"ping_every,omitempty"`
	// CRLF ends the lines of a stream with CR LF.
	CRLF bool `json:"crlf,omitempty"`

	// LoadTime is how long every endpoint answers 503 after the start.
	LoadTime time.Duration `json:"load_time,omitempty"`
	// LoadForever never ends that.
	LoadForever bool `json:"load_forever,omitempty"`
	// Health is what /health says: HealthOK when empty.
	Health Health `json:"health,omitempty"`
	// Faults happen to completions, those of a chat included.
	Faults []Fault `json:"faults,omitempty"`
	// Process holds what only a process can do wrong.
	Process Process `json:"process,omitzero"`
}

// Health is an answer of /health.
type Health string

// The answers.
const (
	HealthOK      Health = ""        // 200 {"status":"ok"} once loaded
	HealthWrong   Health = "wrong"   // 200 with another body, as an impostor would
	HealthError   Health = "error"   // 500
	HealthHang    Health = "hang"    // none
	HealthLoading Health = "loading" // 503 for ever, though completions work
)

// Kind is a kind of fault.
type Kind string

// The kinds of faults of a completion. Fault.AfterTokens and AfterBytes say where.
const (
	KindStatus   Kind = "status"    // answer with Status, Type and Message, no stream
	KindNoAnswer Kind = "no-answer" // the request is taken and never answered
	KindFlood    Kind = "flood"     // Bytes bytes of log on stderr, before the answer; in process: nothing
	KindCrash    Kind = "crash"     // the process dies of Signal; in process: the connection breaks
	KindStall    Kind = "stall"     // nothing is decoded any more, /slots tells the same for ever; /health stays well
	KindWedge    Kind = "wedge"     // the same, and nothing comes from /slots either
	KindCut      Kind = "cut"       // the connection breaks
	KindTrickle  Kind = "trickle"   // every write is split into single bytes
	KindHangEnd  Kind = "hang-end"  // the whole answer or the final event comes, the end of the response does not
	KindError    Kind = "error"     // an error event in the stream, then its end; without a stream it is the answer

	// Of streams alone: a request without "stream" has its answer.
	KindCutRune  Kind = "cut-rune" // the connection breaks inside the bytes of a rune
	KindNoFinal  Kind = "no-final" // the stream ends in good order but without the final event
	KindOversize Kind = "oversize" // one event with a text of Bytes bytes
	KindGarbage  Kind = "garbage"  // an event that is no JSON
)

// Fault is something that goes wrong with a completion.
type Fault struct {
	Kind Kind `json:"kind"`
	// Request is the number of the completion request that it happens to, counted
	// from 1; 0 means every one.
	Request int `json:"request,omitempty"`
	// AfterTokens events were sent (the first of a chat tells the role), or would
	// have been by a stream: an answer without one comes whole at its end. Of
	// KindStatus, KindNoAnswer, KindFlood, KindTrickle and KindHangEnd it is 0.
	AfterTokens int `json:"after_tokens,omitempty"`
	// AfterBytes of the body, when it is not 0, is the place instead, exact to the
	// byte: of KindCut, KindCrash, KindStall and KindWedge alone.
	AfterBytes int `json:"after_bytes,omitempty"`
	// Status (400 to 599), Type and Message are of KindStatus and KindError, which
	// is 500 without one.
	Status  int    `json:"status,omitempty"`
	Type    string `json:"type,omitempty"`
	Message string `json:"message,omitempty"`
	// Signal is of KindCrash (SIGKILL when 0): one that ends a process.
	Signal int `json:"signal,omitempty"`
	// Bytes is of KindOversize and KindFlood.
	Bytes int `json:"bytes,omitempty"`
}

// Process holds faults of the program.
type Process struct {
	// ExitEarly ends it before it listens, with ExitCode (0 to 255), after writing Log.
	ExitEarly bool `json:"exit_early,omitempty"`
	// ExitAfterLoad ends it when the model should be ready.
	ExitAfterLoad bool `json:"exit_after_load,omitempty"`
	ExitCode      int  `json:"exit_code,omitempty"`
	// ExitSignal ends it by that signal instead of ExitCode: one that ends a process.
	ExitSignal int `json:"exit_signal,omitempty"`
	// Log is written to stderr first, for example the lines of a GPU fault.
	Log string `json:"log,omitempty"`
	// NeverListens keeps it from opening its socket.
	NeverListens bool `json:"never_listens,omitempty"`
	// IgnoreSIGTERM leaves it running, or loading; SIGINT still ends it.
	IgnoreSIGTERM bool `json:"ignore_sigterm,omitempty"`
	// Grandchild starts a process of its own that outlives it. Its pid is written
	// to stderr as "fakellama: grandchild pid N".
	Grandchild bool `json:"grandchild,omitempty"`
	// FloodBytes are written to stderr after the start, as fast as it takes them.
	FloodBytes int64 `json:"flood_bytes,omitempty"`
	// OldFlags are flags that this server does not know, as an older build would not.
	OldFlags []string `json:"old_flags,omitempty"`
}

// parseScript reads what Env gives; a key that is none is a mistake.
func parseScript(text string) (Script, error) {
	var s Script
	if text == "" {
		return s, nil
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return s, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return s, errors.New("there is more than one value")
	}
	return s, s.Validate()
}

// Env is the script as an environment entry for cmd/fakellama.
func (s Script) Env() (string, error) {
	if err := s.Validate(); err != nil {
		return "", err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("fakellama script: %w", err)
	}
	return EnvScript + "=" + string(b), nil
}

func (s Script) withDefaults() Script {
	if s.Slots == 0 {
		s.Slots = 1
	}
	if s.ContextLen == 0 {
		s.ContextLen = 4096
	}
	if s.ModelPath == "" {
		s.ModelPath = "fake.gguf"
	}
	if s.Alias == "" {
		s.Alias = s.ModelPath
	}
	if s.MediaMarker == "" {
		s.MediaMarker = newMarker()
	}
	return s
}
