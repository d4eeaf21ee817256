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

// Script configures the server and its faults. The zero value is a healthy server
// with one slot.
type Script struct {
	// Slots is the number of completions that run in parallel; 0 means 1. Others wait.
	Slots int `json:"slots,omitempty"`
	// ContextLen is the context of a slot in tokens; 0 means 4096.
	ContextLen int `json:"context_len,omitempty"`
	// APIKey is required of requests if it is not empty.
	APIKey string `json:"api_key,omitempty"`
	// ModelPath and Alias are returned by /props.
	ModelPath string `json:"model_path,omitempty"`
	Alias     string `json:"alias,omitempty"`
	// TemplateError makes /apply-template fail with this text.
	TemplateError string `json:"template_error,omitempty"`
	// Alternate makes the template reject a conversation in which user and assistant
	// do not alternate after a system message, as the templates of Gemma and Mistral
	// do.
	Alternate bool `json:"alternate,omitempty"`
	// Adapters are the LoRA files that the server was started with.
	Adapters []string `json:"adapters,omitempty"`
	// Vision accepts images (PNG, JPEG, GIF), as a projector does. Each image is
	// ImageTokens tokens, and the generated text depends on them.
	Vision bool `json:"vision,omitempty"`
	// MediaMarker marks an image in a prompt. Empty means a random marker for each
	// server, as in llama-server.
	MediaMarker string `json:"media_marker,omitempty"`
	// Embeddings, Reranking and SlotSave enable the endpoints, as the flags do.
	Embeddings bool `json:"embeddings,omitempty"`
	Reranking  bool `json:"reranking,omitempty"`
	SlotSave   bool `json:"slot_save,omitempty"`

	// Reply is the whole response to every prompt; empty means generated text.
	Reply string `json:"reply,omitempty"`
	// TokenDelay is the time between tokens, PromptDelay that of the prompt.
	TokenDelay  time.Duration `json:"token_delay,omitempty"`
	PromptDelay time.Duration `json:"prompt_delay,omitempty"`
	// PromptBusy computes for a quarter of PromptDelay, as a slow prompt does on a
	// machine that is busy with other work.
	PromptBusy bool `json:"prompt_busy,omitempty"`
	// NeverEnds prevents the model from ending by itself.
	NeverEnds bool `json:"never_ends,omitempty"`
	// KeepsAbandoned keeps a request whose client has left in its slot until a second
	// passes without a result of any request, or until a write of its stream fails, as
	// llama-server v0.5.0 does.
	KeepsAbandoned bool `json:"keeps_abandoned,omitempty"`
	// PingEvery sends an SSE comment before every PingEvery-th token.
	PingEvery int `json:"ping_every,omitempty"`
	// CRLF ends the lines of a stream with CRLF.
	CRLF bool `json:"crlf,omitempty"`

	// Vulkan are the physical devices of Vulkan that --list-devices prints, as
	// GGML_VK_VISIBLE_DEVICES selects them.
	Vulkan []VulkanDevice `json:"vulkan,omitempty"`
	// ROCm are the devices of HIP that --list-devices prints, unless
	// ROCR_VISIBLE_DEVICES is empty.
	ROCm []string `json:"rocm,omitempty"`

	// LoadTime is how long every endpoint responds with 503 after the start.
	LoadTime time.Duration `json:"load_time,omitempty"`
	// LoadForever makes every endpoint respond with 503 forever.
	LoadForever bool `json:"load_forever,omitempty"`
	// Health is the response of /health; empty means HealthOK.
	Health Health `json:"health,omitempty"`
	// Faults are the faults of completions, including chat completions.
	Faults []Fault `json:"faults,omitempty"`
	// Process holds the faults of the program cmd/fakellama.
	Process Process `json:"process,omitzero"`
}

// Health is a response of /health.
type Health string

// The responses.
const (
	HealthOK      Health = ""        // 200 {"status":"ok"} once loaded
	HealthWrong   Health = "wrong"   // 200 with another body, as an impostor would
	HealthError   Health = "error"   // 500
	HealthHang    Health = "hang"    // none
	HealthLoading Health = "loading" // 503 for ever, though completions work
)

// Kind is a kind of fault.
type Kind string

// The kinds of faults of a completion. Fault.AfterTokens and AfterBytes say where in the
// response they occur.
const (
	KindStatus   Kind = "status"    // a response with Status, Type and Message, and no stream
	KindNoAnswer Kind = "no-answer" // the request is read and never answered
	KindFlood    Kind = "flood"     // Bytes bytes of log on stderr before the response; nothing in process
	KindCrash    Kind = "crash"     // Signal ends the process; in process the connection breaks
	KindStall    Kind = "stall"     // decoding stops: /slots returns the same state forever, /health still returns ok
	KindWedge    Kind = "wedge"     // the same, and /slots does not respond
	KindCut      Kind = "cut"       // the connection breaks
	KindTrickle  Kind = "trickle"   // every write is split into single bytes
	KindHangEnd  Kind = "hang-end"  // the whole result or the final event is sent, but the response does not end
	KindError    Kind = "error"     // an error event, then the end of the stream; without a stream the error is the response

	// For streams only: a request without "stream" gets its response.
	KindCutRune  Kind = "cut-rune" // the connection breaks inside the bytes of a rune
	KindNoFinal  Kind = "no-final" // the stream ends regularly, but without the final event
	KindOversize Kind = "oversize" // one event has a text of Bytes bytes
	KindGarbage  Kind = "garbage"  // an event is not JSON
)

// Fault is a fault of a completion.
type Fault struct {
	Kind Kind `json:"kind"`
	// Request is the number of the completion request that has the fault, starting at
	// 1; 0 means every request.
	Request int `json:"request,omitempty"`
	// AfterTokens is the number of events before the fault; the first event of a chat
	// has the role. For a response without a stream it is the number of events that a
	// stream would have had. It is 0 for KindStatus, KindNoAnswer, KindFlood,
	// KindTrickle and KindHangEnd.
	AfterTokens int `json:"after_tokens,omitempty"`
	// AfterBytes, if not 0, is the number of bytes of the body before the fault. It is
	// for KindCut, KindCrash, KindStall and KindWedge only.
	AfterBytes int `json:"after_bytes,omitempty"`
	// Status (400 to 599), Type and Message are for KindStatus and KindError. The
	// default Status of KindError is 500.
	Status  int    `json:"status,omitempty"`
	Type    string `json:"type,omitempty"`
	Message string `json:"message,omitempty"`
	// Signal is for KindCrash: a signal that terminates a process; 0 means SIGKILL.
	Signal int `json:"signal,omitempty"`
	// Bytes is for KindOversize and KindFlood.
	Bytes int `json:"bytes,omitempty"`
}

// Process holds faults of the program.
type Process struct {
	// ExitEarly makes the program write Log and exit with ExitCode (0 to 255) before
	// it listens.
	ExitEarly bool `json:"exit_early,omitempty"`
	// ExitAfterLoad makes the program exit when the model should be ready.
	ExitAfterLoad bool `json:"exit_after_load,omitempty"`
	ExitCode      int  `json:"exit_code,omitempty"`
	// ExitSignal is a signal that terminates the program instead of ExitCode.
	ExitSignal int `json:"exit_signal,omitempty"`
	// Log is written to stderr at the start, for example the lines of a GPU fault.
	Log string `json:"log,omitempty"`
	// NeverListens prevents the program from opening its socket.
	NeverListens bool `json:"never_listens,omitempty"`
	// IgnoreSIGTERM makes the program ignore SIGTERM; SIGINT still stops it.
	IgnoreSIGTERM bool `json:"ignore_sigterm,omitempty"`
	// Grandchild starts a process that outlives the program. Its pid is written to
	// stderr as "fakellama: grandchild pid N".
	Grandchild bool `json:"grandchild,omitempty"`
	// FloodBytes is the number of bytes written to stderr after the start, as fast as
	// possible.
	FloodBytes int64 `json:"flood_bytes,omitempty"`
	// OldFlags lists flags that this server rejects, as an older build would.
	OldFlags []string `json:"old_flags,omitempty"`
}

// parseScript parses the result of Env. An unknown key is an error.
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

// Env returns the script as an environment entry for cmd/fakellama.
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
