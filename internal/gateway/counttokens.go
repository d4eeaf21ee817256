package gateway

import (
	"bytes"
	"net/http"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/activity"
)

// countTokens counts the tokens of requests that need a slot, for the activity and
// for keys that have a budget.
func (g *Gateway) countTokens(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r.Context())
		if rt, _ := g.findRoute(r.URL.Path); rt.light {
			next.ServeHTTP(w, r)
			return
		}
		t := &tokenWriter{ResponseWriter: w, status: http.StatusOK, request: x.observed.request, capture: x.observed.body != nil}
		if g.metrics != nil {
			t.gap = g.metrics.Gap(x.model.Name)
		}
		x.observed.usage = t
		defer func() {
			if x.key != nil && x.key.TokensPerDay > 0 && t.status == http.StatusOK {
				g.keys.usage.add(x.key.Name, t.scanner.tokens(t.isStream(), x.body, max(x.answers, 1)), time.Now())
			}
		}()
		next.ServeHTTP(t, r)
	})
}

// tokenWriter scans an answer, and measures the time between the pieces of a stream.
type tokenWriter struct {
	http.ResponseWriter

	status  int
	scanner usageScanner

	request  *activity.Request     // nil: not a part of the activity
	gap      func(seconds float64) // nil: not measured
	began    bool
	stream   bool
	last     time.Time // the last piece of a stream
	capture  bool
	captured []byte
	written  int64
}

// Unwrap lets http.ResponseController flush.
func (t *tokenWriter) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (t *tokenWriter) WriteHeader(status int) {
	t.status = status
	t.ResponseWriter.WriteHeader(status)
}

// isStream reports whether the answer is a stream of events.
func (t *tokenWriter) isStream() bool {
	return strings.HasPrefix(t.Header().Get("Content-Type"), "text/event-stream")
}

// Write implements http.ResponseWriter.
func (t *tokenWriter) Write(p []byte) (int, error) {
	if !t.began {
		t.began, t.stream = true, t.isStream() && t.status == http.StatusOK
	}
	before := t.scanner.values
	t.scanner.scan(p)
	if pieces := t.scanner.values - before; t.stream && pieces > 0 && !bytes.HasPrefix(p, []byte("data: [DONE]")) {
		t.measure(pieces, time.Now())
	}
	if t.capture {
		t.captured = append(t.captured, p[:min(int64(len(p)), max(activity.MaxCapture-t.written, 0))]...)
	}
	t.written += int64(len(p))
	return t.ResponseWriter.Write(p)
}

// measure counts pieces of a stream that arrived together.
func (t *tokenWriter) measure(pieces int64, now time.Time) {
	t.request.Tokens(pieces, now)
	if t.gap != nil && !t.last.IsZero() {
		t.gap(now.Sub(t.last).Seconds())
	}
	t.last = now
}

// describe sets the tokens of a record. started is when the request had a slot, and
// answers how many it asked for.
func (t *tokenWriter) describe(r *activity.Record, started time.Time, answers int64) {
	c := &t.scanner.counts
	if !t.scanner.found || t.status != http.StatusOK {
		return
	}
	r.PromptTokens, r.CachedTokens = c.prompt()*answers, c.cached()*answers
	r.GeneratedTokens = c.generated() * answers
	if r.FirstTokenSeconds == 0 && c.PromptMillis > 0 && r.GeneratedTokens > 0 {
		r.FirstTokenSeconds = (started.Sub(r.Time) + time.Duration(c.PromptMillis*float64(time.Millisecond))).Seconds()
	}
	if c.PredictedPerSecond > 0 {
		r.TokensPerSecond = c.PredictedPerSecond
	}
}
