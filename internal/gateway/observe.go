package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/activity"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Metrics counts requests. It answers GET /metrics, for keys without limits.
type Metrics interface {
	http.Handler
	// Request is called at the end of each request, also of those without a key. It
	// must not keep the record.
	Request(r *activity.Record)
	// Gap returns a function that is called with the time between two pieces of a
	// stream, in seconds. It must not block.
	Gap(model string) func(seconds float64)
}

// observation is what is noted of a request for the activity, the metrics and the
// access log.
type observation struct {
	record  activity.Record
	request *activity.Request // nil: not a part of the activity
	writer  *observedWriter

	queued, started time.Time // zero: not yet
	whole           bool      // the backend's answer was read to its end
	broken          error     // what broke it off
	usage           *tokenWriter
	body            []byte // captured
}

// observe notes how each request ends.
func (g *Gateway) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r.Context())
		o := &x.observed
		o.writer = &observedWriter{ResponseWriter: w}
		o.record = activity.Record{ID: rand.Text(), Time: time.Now(), Route: g.routePattern(r.URL.Path), Method: knownMethod(r.Method)}
		w.Header().Set("X-Request-Id", o.record.ID)
		defer func() { g.endObservation(r.Context(), x) }()
		next.ServeHTTP(o.writer, r)
	})
}

// track adds requests that need a slot, or that load or unload a model, to the
// activity.
func (g *Gateway) track(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rt, _ := g.findRoute(r.URL.Path); !rt.light {
			x := exchangeOf(r.Context())
			x.observed.record.Key = x.key.name()
			x.observed.request = g.activity.Begin(x.observed.record)
		}
		next.ServeHTTP(w, r)
	})
}

// beginWait notes when a request begins to wait for its model and a slot.
func (g *Gateway) beginWait(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r.Context())
		x.observed.queued = time.Now()
		x.observed.request.Update(func(a *activity.Record) { a.Model, a.Stream = x.model.Name, x.stream })
		next.ServeHTTP(w, r)
	})
}

// endWait notes when it has both.
func (g *Gateway) endWait(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o := &exchangeOf(r.Context()).observed
		o.started = time.Now()
		if o.request != nil {
			wait := o.started.Sub(o.queued).Seconds()
			o.request.Update(func(a *activity.Record) { a.Stage, a.WaitSeconds = activity.Prompt, wait })
			if g.activity.Capture() > 0 && r.GetBody != nil {
				o.body = readCapture(r)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// readCapture returns the beginning of a request's body.
func readCapture(r *http.Request) []byte {
	body, err := r.GetBody()
	if err != nil {
		return nil
	}
	defer func() { _ = body.Close() }()
	raw, _ := io.ReadAll(io.LimitReader(body, activity.MaxCapture+1)) // it is in memory
	return raw
}

// endObservation completes the record of a request and passes it on.
func (g *Gateway) endObservation(ctx context.Context, x *exchange) {
	o, now := &x.observed, time.Now()
	complete := func(r *activity.Record) {
		r.Model, r.Stream, r.Key = x.model.Name, x.stream, x.key.name()
		o.complete(r, x, now, ctx.Err() != nil)
	}
	r := o.record
	if o.request != nil {
		r = o.request.End(now, complete)
	} else {
		complete(&r)
		r.Stage, r.Seconds = activity.Done, now.Sub(r.Time).Seconds()
	}
	if g.metrics != nil {
		g.metrics.Request(&r)
	}
	if g.accessLog != nil {
		g.accessLog(&r)
	}
	if o.body != nil {
		var answer []byte
		truncated := false
		if o.usage != nil {
			answer, truncated = o.usage.captured, o.usage.written > activity.MaxCapture
		}
		g.activity.Keep(r.ID, o.body, answer, truncated)
	}
}

// complete sets what is known at the end of a request. left reports whether its
// client has disconnected.
func (o *observation) complete(r *activity.Record, x *exchange, now time.Time, left bool) {
	w := o.writer
	r.Status, r.Bytes = w.status, w.bytes
	if w.failed != 0 {
		r.Status = w.failed
	}
	switch {
	case o.queued.IsZero():
	case o.started.IsZero():
		r.WaitSeconds = now.Sub(o.queued).Seconds()
	default:
		r.WaitSeconds = o.started.Sub(o.queued).Seconds()
	}
	if o.usage != nil {
		o.usage.describe(r, o.started, max(x.answers, 1))
	}
	r.Outcome, r.Why = o.outcome(r.Status, x.ended, left)
}

// outcome says how a request ended that was answered with a status.
func (o *observation) outcome(status int, ended error, left bool) (kind activity.Outcome, why string) {
	message := activity.Clean(o.writer.message)
	switch {
	case o.broken != nil && isCrash(o.broken):
		return activity.Crashed, "llama-server exited or hung while it handled the request"
	case ended != nil:
		return activity.TimedOut, activity.Clean(ended.Error())
	case left && !o.whole && o.writer.failed == 0:
		return activity.ClientLeft, "the client closed the connection before the answer was complete"
	case o.broken != nil && message == "":
		return activity.Failed, "llama-server broke off its answer"
	}
	if message == "" && status >= http.StatusBadRequest {
		message = "llama-server answered with the status " + http.StatusText(status)
	}
	switch {
	case status < http.StatusBadRequest:
		return activity.OK, ""
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return activity.NotAllowed, message
	case status == http.StatusTooManyRequests:
		return activity.Limited, message
	case status == http.StatusServiceUnavailable:
		return activity.Unavailable, message
	case status == http.StatusGatewayTimeout, status == http.StatusRequestTimeout:
		return activity.TimedOut, message
	case status < http.StatusInternalServerError:
		return activity.Rejected, message
	}
	return activity.Failed, message
}

// isCrash reports whether llama-server exited or hung.
func isCrash(err error) bool {
	var exit *supervise.ExitError
	var hang *supervise.HangError
	return errors.As(err, &exit) || errors.As(err, &hang) || errors.Is(err, supervise.ErrCrashed)
}

// observedWriter notes the status and the size of an answer, and the error that it
// consists of.
type observedWriter struct {
	http.ResponseWriter

	status int // 0: no answer yet
	bytes  int64

	failed  int // the status of an error that writeError wrote
	message string
}

// Unwrap lets http.ResponseController flush.
func (w *observedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *observedWriter) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *observedWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// noteError notes an error that the gateway answers with. A message that quotes the
// body of a request must not be passed.
func noteError(w http.ResponseWriter, status int, message string) {
	for {
		if o, ok := w.(*observedWriter); ok {
			if o.failed == 0 {
				o.failed, o.message = status, message
			}
			return
		}
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return
		}
		w = wrapper.Unwrap()
	}
}

// otherRoute stands for paths that are not offered: as labels of metrics they would
// be without number.
const otherRoute = "other"

// routePattern returns the name of a path's route, one of a fixed number.
func (g *Gateway) routePattern(path string) string {
	if slot, ok := strings.CutPrefix(path, "/slots/"); ok && !strings.Contains(slot, "/") {
		return "/slots/{id}"
	}
	if _, ok := modelName(path); ok {
		return "/v1/models/{name}"
	}
	if _, ok := g.routes[path]; ok {
		return path
	}
	return otherRoute
}

// knownMethod returns a method that the service or a browser uses, or "other".
func knownMethod(method string) string {
	if slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions, http.MethodPut, http.MethodPatch, http.MethodDelete}, method) {
		return method
	}
	return otherRoute
}
