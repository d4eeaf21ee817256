package gateway

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxBody is the largest accepted body in bytes; images travel inside it as
	// base64. llama-server has the same limit (CPPHTTPLIB_PAYLOAD_MAX_LENGTH in
	// cpp-httplib's httplib.h) and closes the connection without an answer.
	maxBody = 100 << 20
	// maxNesting is the deepest accepted nesting of JSON. llama-server walks
	// values recursively: some thousand levels overflow its stack, which ends the
	// requests of all clients.
	maxNesting = 1000
	// freeBody is what each body may occupy beside the bounds of bodyMemory, so
	// that ordinary requests are served while large ones fill it.
	freeBody = 64 << 10
)

// bodyPace bounds how slowly a body may arrive: after grace, at bytes a second on
// average.
type bodyPace struct {
	grace time.Duration
	bytes float64
}

// bodyMemory bounds the memory of bodies that are read or wait for a slot, in all
// and for each client.
type bodyMemory struct {
	total, perClient int64

	mu     sync.Mutex
	used   int64
	client map[string]int64
}

func newBodyMemory(total, perClient int64) *bodyMemory {
	return &bodyMemory{total: total, perClient: perClient, client: map[string]int64{}}
}

// reserve takes n bytes for a client, or reports errBusy.
func (m *bodyMemory) reserve(client string, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.used+n > m.total || m.client[client]+n > m.perClient {
		return errBusy
	}
	m.used += n
	m.client[client] += n
	return nil
}

// release returns n bytes.
func (m *bodyMemory) release(client string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used -= n
	if m.client[client] -= n; m.client[client] == 0 {
		delete(m.client, client)
	}
}

// readBody reads the body of a request into memory before it competes for a slot:
// a slow client costs llama-server nothing. What a client announces is not
// reserved, only what it has sent.
func (g *Gateway) readBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rt, _ := g.findRoute(r.URL.Path)
		if rt.fields == nil && !rt.form {
			r.Body, r.ContentLength = http.NoBody, 0
			next.ServeHTTP(w, r)
			return
		}
		client := exchangeOf(r.Context()).client
		body, reserved, err := g.receiveBody(w, r, client)
		defer func() { g.memory.release(client, reserved) }()
		if err == nil {
			err = g.validate(r, rt, body)
		}
		if err != nil {
			g.rejectBody(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// rejectBody answers a request whose body cannot be forwarded.
func (g *Gateway) rejectBody(w http.ResponseWriter, r *http.Request, err error) {
	status := statusFor(err)
	noteError(w, cmp.Or(status, http.StatusBadRequest), bodyReason(err))
	switch {
	case status == http.StatusTooManyRequests:
		writeBusy(w, err)
	case status != 0:
		writeError(w, status, "invalid_request_error", err.Error())
	case r.Context().Err() == nil: // else the client has disconnected
		writeError(w, http.StatusBadRequest, "invalid_request_error", err.Error())
	}
}

// receiveBody reads the body, and returns what it reserved of the memory.
func (g *Gateway) receiveBody(w http.ResponseWriter, r *http.Request, client string) (body []byte, reserved int64, err error) {
	if r.ContentLength > maxBody {
		return nil, 0, errTooLarge
	}
	for _, e := range r.Header.Values("Content-Encoding") {
		if e != "identity" {
			return nil, 0, errEncoded
		}
	}
	control := http.NewResponseController(w)
	defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	src := http.MaxBytesReader(w, r.Body, maxBody)
	start := time.Now()
	buf := make([]byte, 0, min(max(r.ContentLength+1, 512), freeBody))
	for {
		deadline := start.Add(g.pace.grace + time.Duration(float64(len(buf))/g.pace.bytes*float64(time.Second)))
		if err := control.SetReadDeadline(deadline); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return nil, reserved, err
		}
		if len(buf) == cap(buf) {
			grown := int64(min(2*cap(buf), maxBody+1))
			if more := grown - freeBody - reserved; more > 0 {
				if err := g.memory.reserve(client, more); err != nil {
					return nil, reserved, err
				}
				reserved += more
			}
			buf = append(make([]byte, 0, grown), buf...)
		}
		n, err := src.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		var large *http.MaxBytesError
		switch {
		case errors.Is(err, io.EOF):
			return buf, reserved, nil
		case errors.As(err, &large):
			return nil, reserved, errTooLarge
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, reserved, errTooSlow
		case err != nil:
			return nil, reserved, err
		}
	}
}

// validate checks a body and replaces it with what may be forwarded of it.
//
// A JSON body gets the content type JSON, whatever the client says: llama-server
// reads at most 1 MiB of the URL-encoded form that "curl -d" announces, and turns
// a multipart form into the fields of a JSON body (server-http.cpp).
func (g *Gateway) validate(r *http.Request, rt route, body []byte) error {
	kind, params, mediaErr := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "multipart/") != rt.form {
		return errEncoded
	}
	if rt.form {
		if mediaErr != nil || kind != "multipart/form-data" || params["boundary"] == "" {
			return errForm
		}
		form, contentType, err := filterForm(body, params["boundary"], exchangeOf(r.Context()))
		if err != nil {
			return err
		}
		setBody(r, form, contentType)
		return nil
	}
	if len(body) == 0 {
		body = []byte("{}") // llama-server rejects what is missing
	}
	if !nestingWithin(body, maxNesting) {
		return errTooDeep
	}
	filtered, removed, err := filterFields(body, rt.fields)
	if err != nil {
		return err
	}
	if len(removed) > 0 {
		g.log.Debug("fields not forwarded", "path", r.URL.Path, "fields", removed)
	}
	exchangeOf(r.Context()).readFields(filtered, rt.fields)
	setBody(r, filtered, "application/json")
	return nil
}

// readFields notes what the gateway needs to know of a body that filterFields has
// accepted.
func (x *exchange) readFields(body []byte, accepted fields) {
	x.body = int64(len(body))
	prompts, choices := int64(1), int64(1)
	for name, value := range jsonValue(bytes.Trim(body, " \t\r\n")).members() {
		if _, ok := accepted[name]; !ok || value.isNull() {
			continue
		}
		switch name {
		case "model":
			x.name = value.text()
		case "stream":
			x.stream = string(value) == "true"
		case "wait":
			x.wait = string(value) == "true"
		case "n", "n_cmpl":
			choices = max(choices, int64(value.number()))
		case "prompt":
			prompts = countPrompts(value)
		}
	}
	x.prompts, x.answers = prompts, prompts*choices
}

// setBody replaces the body of a request. It can be sent again, should
// llama-server exit before it answers.
func setBody(r *http.Request, body []byte, contentType string) {
	r.Header.Set("Content-Type", contentType)
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	r.TransferEncoding = nil
}

// nestingWithin reports whether brackets are nested at most that deep. It
// recognises strings as valid JSON has them; other text is rejected later, by a
// parser that limits its recursion itself.
func nestingWithin(body []byte, limit int) bool {
	depth, inString, escape := 0, false, false
	for _, c := range body {
		switch {
		case escape:
			escape = false
		case inString:
			escape, inString = c == '\\', c != '"'
		case c == '"':
			inString = true
		case c == '[' || c == '{':
			if depth++; depth > limit {
				return false
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return true
}

// transcriptionFields are the text fields of a transcription; llama-server merges
// all others into a chat request.
func transcriptionFields() []string {
	return []string{"model", "prompt", "language", "response_format", "temperature", "stream", "max_tokens"}
}

// filterForm writes the form of a transcription again, with its file and the
// accepted fields, and notes in x what the gateway needs to know.
func filterForm(body []byte, boundary string, x *exchange) (form []byte, contentType string, err error) {
	in := multipart.NewReader(bytes.NewReader(body), boundary)
	var out bytes.Buffer
	w := multipart.NewWriter(&out)
	for {
		part, err := in.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, "", fmt.Errorf("%w: %w", errForm, err)
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return nil, "", fmt.Errorf("%w: %w", errForm, err)
		}
		var field io.Writer
		switch name := part.FormName(); {
		case name == "file":
			field, err = w.CreateFormFile(name, "file")
		case slices.Contains(transcriptionFields(), name):
			if len(content) > 64<<10 {
				return nil, "", fmt.Errorf("%w: the field %q is larger than 64 KiB", errForm, name)
			}
			x.readField(name, string(content))
			field, err = w.CreateFormField(name)
		default:
			continue
		}
		if err != nil {
			return nil, "", err
		}
		if _, err := field.Write(content); err != nil {
			return nil, "", err
		}
	}
	if err := w.Close(); err != nil {
		return nil, "", err
	}
	return out.Bytes(), w.FormDataContentType(), nil
}

// readField is readFields for a field of a form.
func (x *exchange) readField(name, value string) {
	switch name {
	case "model":
		x.name = value
	case "stream":
		x.stream = value == "true"
	}
}
