package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm"
)

// commentDeadline is how long a client may take to accept a comment.
const commentDeadline = 10 * time.Second

// answerWhileWaiting lets a client that asked for a stream wait for a model or a
// slot without silence, in which a proxy would end its connection: see
// waitingWriter.
func (g *Gateway) answerWhileWaiting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r.Context())
		if !x.stream {
			next.ServeHTTP(w, r)
			return
		}
		x.waiting = &waitingWriter{
			ResponseWriter: w, first: time.Now().Add(g.limits.FirstComment), every: g.limits.Comments,
			anthropic: r.URL.Path == "/v1/messages", exchange: x,
		}
		next.ServeHTTP(x.waiting, r)
		x.waiting.finish()
	})
}

// waitingWriter answers a client that waits with the head of an event stream and
// comments about the progress. What the rest of the chain answers then becomes a
// part of that stream: an event stream as it is, an error as an event.
type waitingWriter struct {
	http.ResponseWriter

	first     time.Time // of the comments
	every     time.Duration
	anthropic bool
	exchange  *exchange // names the model that the client waits for

	headSent bool
	status   int          // of an answer that becomes an event, 0: none
	answer   bytes.Buffer // that answer

	mu       sync.Mutex
	progress rocm.LoadProgress // zero: the model does not load
}

// Unwrap lets http.ResponseController flush.
func (w *waitingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// report is the Progress of a request for a lease.
func (w *waitingWriter) report(p rocm.LoadProgress) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.progress = p
}

// while runs f, and sends comments until it returns. A nil writer sends none.
func (w *waitingWriter) while(f func()) {
	if w == nil {
		f()
		return
	}
	var mu sync.Mutex // held while a comment is sent
	ended := false
	var timer *time.Timer
	mu.Lock()
	timer = time.AfterFunc(max(time.Until(w.first), 0), func() {
		mu.Lock()
		defer mu.Unlock()
		if ended {
			return
		}
		w.comment()
		w.first = time.Now().Add(w.every)
		timer.Reset(w.every)
	})
	mu.Unlock()
	f()
	timer.Stop()
	mu.Lock()
	defer mu.Unlock()
	ended = true
	timer.Stop() // a comment has set it again
}

// comment sends a comment.
func (w *waitingWriter) comment() {
	if !w.headSent {
		w.headSent = true
		h := w.Header()
		h.Set("Content-Type", "text/event-stream")
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no")
		w.ResponseWriter.WriteHeader(http.StatusOK)
	}
	w.mu.Lock()
	text := describeWait(w.exchange.model.Name, w.progress)
	w.mu.Unlock()
	control := http.NewResponseController(w.ResponseWriter)
	_ = control.SetWriteDeadline(time.Now().Add(commentDeadline))
	_, _ = fmt.Fprintf(w.ResponseWriter, ": %s\n\n", text)
	_ = control.Flush()
	_ = control.SetWriteDeadline(time.Time{})
}

// describeWait returns the text of a comment, one line.
func describeWait(model string, p rocm.LoadProgress) string {
	if p == (rocm.LoadProgress{}) {
		return "waiting"
	}
	name := strings.Map(func(r rune) rune {
		if r < ' ' {
			return -1
		}
		return r
	}, model)
	return fmt.Sprintf("loading the model %s, %.0f %%", name, 100*loadedFraction(p))
}

// WriteHeader implements http.ResponseWriter.
func (w *waitingWriter) WriteHeader(status int) {
	switch {
	case !w.headSent:
		w.ResponseWriter.WriteHeader(status)
	case status != http.StatusOK:
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *waitingWriter) Write(p []byte) (int, error) {
	if w.status != 0 {
		return w.answer.Write(p)
	}
	return w.ResponseWriter.Write(p)
}

// finish sends an answer that is not an event stream as an event.
func (w *waitingWriter) finish() {
	if w.status == 0 {
		return
	}
	var answer struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(w.answer.Bytes(), &answer) != nil || answer.Error == nil {
		raw, err := json.Marshal(errorObject(w.status, "server_error", http.StatusText(w.status))["error"])
		if err != nil {
			return
		}
		answer.Error = raw
	}
	event := fmt.Sprintf("data: {\"error\":%s}\n\n", answer.Error)
	if w.anthropic {
		event = fmt.Sprintf("event: error\ndata: {\"type\":\"error\",\"error\":%s}\n\n", answer.Error)
	}
	_, _ = fmt.Fprint(w.ResponseWriter, event)
}
