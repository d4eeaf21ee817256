package fakellama

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Server is the fake llama-server. It is safe for concurrent use.
type Server struct {
	script  Script
	vocab   *vocab
	mux     *http.ServeMux
	start   time.Time
	slots   *slots
	results results
	closed  chan struct{}
	wedged  chan struct{} // closed when a stall begins
	frozen  []slotState   // the slots at that moment; nil: /slots does not respond

	mu        sync.Mutex
	requests  int // completions so far
	loras     []float32
	saved     map[string][]int32
	once      sync.Once
	wedgeOnce sync.Once

	// crash and flood are set by the program; nil for tests in process.
	crash func(signal int)
	flood func(bytes int)
}

// New returns a server that follows the script. It panics if Validate rejects the
// script.
func New(script Script) *Server {
	if err := script.Validate(); err != nil {
		panic(err)
	}
	script = script.withDefaults()
	s := &Server{
		script: script, vocab: newVocab(), mux: http.NewServeMux(), start: time.Now(),
		slots: newSlots(script.Slots), closed: make(chan struct{}), wedged: make(chan struct{}),
		loras: make([]float32, len(script.Adapters)), saved: map[string][]int32{},
	}
	for i := range s.loras {
		s.loras[i] = 1
	}
	s.routes()
	return s
}

// Close ends requests that hang on purpose. Later requests fail.
func (s *Server) Close() { s.once.Do(func() { close(s.closed) }) }

// Busy returns the number of busy slots.
func (s *Server) Busy() int { return s.slots.busy() }

// Requests returns the number of completion requests, including chat completions.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func (s *Server) routes() {
	for _, route := range s.handlers() {
		for _, pattern := range route.patterns {
			s.mux.HandleFunc(pattern, route.handler)
		}
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, &apiError{status: 404, Type: "not_found_error", Message: "File Not Found"})
	})
}

// route is a handler with its patterns for http.ServeMux.
type route struct {
	handler  http.HandlerFunc
	patterns []string
}

// handlers lists the routes of server.cpp that the fake implements.
func (s *Server) handlers() []route {
	return []route{
		{s.health, []string{"GET /health", "GET /v1/health"}},
		{s.props, []string{"GET /props"}},
		{off("changing global properties", "--props"), []string{"POST /props"}},
		{off("metrics endpoint", "--metrics"), []string{"GET /metrics"}},
		{s.listSlots, []string{"GET /slots"}},
		{s.slotAction, []string{"POST /slots/{id}"}},
		{s.models, []string{"GET /models", "GET /v1/models"}},
		{s.completion, []string{"POST /completion", "POST /completions"}},
		{s.completionOAI, []string{"POST /v1/completions"}},
		{s.chat, []string{"POST /chat/completions", "POST /v1/chat/completions"}},
		{s.tokenize, []string{"POST /tokenize"}},
		{s.detokenize, []string{"POST /detokenize"}},
		{s.applyTemplate, []string{"POST /apply-template"}},
		{s.embeddings(false), []string{"POST /embedding", "POST /embeddings"}},
		{s.embeddings(true), []string{"POST /v1/embeddings"}},
		{s.rerank, []string{"POST /rerank", "POST /reranking", "POST /v1/rerank", "POST /v1/reranking"}},
		{s.listLoRAs, []string{"GET /lora-adapters"}},
		{s.setLoRAs, []string{"POST /lora-adapters"}},
	}
}

// loading reports whether the model is still loading.
func (s *Server) loading() bool {
	return s.script.LoadForever || time.Since(s.start) < s.script.LoadTime
}

// ServeHTTP checks requests in the order of server-http.cpp: first whether the
// model is loaded, then the key.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "llama.cpp")
	select {
	case <-s.closed:
		panic(http.ErrAbortHandler)
	default:
	}
	isHealth := r.URL.Path == "/health" || r.URL.Path == "/v1/health"
	if isHealth && s.script.Health != HealthOK {
		s.mux.ServeHTTP(w, r)
		return
	}
	if s.loading() {
		writeError(w, errLoading())
		return
	}
	if key := s.script.APIKey; key != "" && !isHealth {
		given := r.Header.Get("Authorization")
		if given == "" {
			given = r.Header.Get("X-Api-Key")
		}
		if strings.TrimPrefix(given, "Bearer ") != key {
			writeError(w, &apiError{status: 401, Type: "authentication_error", Message: "Invalid API Key"})
			return
		}
	}
	s.mux.ServeHTTP(w, r)
}

func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	switch s.script.Health {
	case HealthWrong:
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>It works!</html>") // the client may be gone
	case HealthError:
		writeError(w, &apiError{status: 500, Type: "server_error", Message: "internal error"})
	case HealthHang:
		s.hang(r)
	case HealthLoading:
		writeError(w, errLoading())
	case HealthOK:
		writeJSON(w, map[string]string{"status": "ok"})
	}
}

// wedge stops all decoding. A server whose GPU hangs in a decode still responds to
// /slots with the last state (yield_to_queue in server-context.cpp, llama-server
// v0.5.0). A server whose main thread hangs elsewhere does not respond.
func (s *Server) wedge(mute bool) {
	s.wedgeOnce.Do(func() {
		if !mute {
			s.frozen = s.slots.snapshot()
		}
		close(s.wedged)
	})
}

// decodes waits while decoding is stopped: forever once the server is wedged.
func (s *Server) decodes(ctx context.Context) error {
	select {
	case <-s.wedged:
	default:
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closed:
		return errCut
	}
}

// hang waits until the client leaves or the server is closed.
func (s *Server) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.closed:
	}
	panic(http.ErrAbortHandler)
}

// apiError is the server's error object.
type apiError struct {
	status  int
	Code    int    `json:"code"`
	Message string `json:"message"`
	Type    string `json:"type"`
	Prompt  int    `json:"n_prompt_tokens,omitempty"`
	Context int    `json:"n_ctx,omitempty"`
}

func (e *apiError) Error() string { return e.Message }

func errLoading() *apiError {
	return &apiError{status: 503, Type: "unavailable_error", Message: "Loading model"}
}

func errRequest(message string) *apiError {
	return &apiError{status: 400, Type: "invalid_request_error", Message: message}
}

func errUnsupported(message string) *apiError {
	return &apiError{status: 501, Type: "not_supported_error", Message: message}
}

const jsonType = "application/json; charset=utf-8"

func writeError(w http.ResponseWriter, e *apiError) {
	e.Code = e.status
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(e.status)
	_, _ = w.Write(encode(map[string]any{"error": e})) // the client may be gone
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", jsonType)
	_, _ = w.Write(encode(v)) // the client may be gone
}

// encode returns JSON as llama-server writes it: without HTML escapes, without a
// final newline, and with the replacement character for invalid UTF-8.
func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("fakellama: %v", err)) // only our own types come here
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// The largest body that cpp-httplib accepts, in bytes, in general and for
// application/x-www-form-urlencoded, the default of curl -d
// (CPPHTTPLIB_PAYLOAD_MAX_LENGTH and
// CPPHTTPLIB_FORM_URL_ENCODED_PAYLOAD_MAX_LENGTH).
const (
	maxBody = 100 << 20
	maxForm = 1 << 20
)

// decode parses a request's JSON. If it is invalid, decode responds to the request.
func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	if errors.As(err, &large) || len(b) > maxForm && r.Header.Get("Content-Type") == "application/x-www-form-urlencoded" {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return false
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err == nil {
		return true
	}
	var own *apiError
	if errors.As(err, &own) {
		writeError(w, own)
		return false
	}
	// A parse error is an exception other than invalid_argument: 500.
	writeError(w, &apiError{status: 500, Type: "server_error", Message: "[json.exception.parse_error.101] " + err.Error()})
	return false
}
