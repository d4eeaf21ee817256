package gateway

import (
	"context"
	"errors"
	"net/http"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// roundTripperFunc is a function that implements http.RoundTripper.
type roundTripperFunc func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripperFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// roundTrip sends a request through the backend's own transport.
func (g *Gateway) roundTrip(r *http.Request) (*http.Response, error) {
	x := exchangeOf(r.Context())
	return x.lease.Backend().HTTPClient().Transport.RoundTrip(r.WithContext(supervise.WithWork(r.Context(), g.workOf(r))))
}

// workOf describes to the backend what a request makes it do.
func (g *Gateway) workOf(r *http.Request) supervise.Work {
	x := exchangeOf(r.Context())
	rt, _ := g.findRoute(r.URL.Path)
	return supervise.Work{
		Answers: x.answers, Judged: rt.steady && x.prompts <= 1, NoSlot: rt.light,
		Hung: func() { g.crashes.record(x.client, time.Now()) },
	}
}

// handleProxyError answers a request that the backend did not.
func (g *Gateway) handleProxyError(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) || r.Context().Err() != nil {
		return // the client has disconnected, or limitResponse answers
	}
	if status := statusFor(err); status != 0 {
		writeError(w, status, "invalid_request_error", err.Error())
		return
	}
	exchangeOf(r.Context()).observed.broken = err
	g.recordCrash(r, err, false)
	g.log.Warn("request failed", "path", r.URL.Path, "cause", err.Error())
	// The log's tail, which err may hold, is for the machine's owner alone.
	var exit *supervise.ExitError
	var stuck *supervise.HangError
	switch {
	case errors.Is(err, supervise.ErrStopped):
		writeError(w, http.StatusServiceUnavailable, "unavailable_error", "the server is shutting down")
	case errors.Is(err, supervise.ErrCrashed):
		w.Header().Set("X-Should-Retry", "false") // OpenAI's clients retry a 502 otherwise
		writeError(w, http.StatusBadGateway, "server_error", "llama-server crashed while handling this request; it will not be retried")
	case errors.As(err, &exit):
		writeError(w, http.StatusBadGateway, "server_error", "llama-server crashed and is being restarted; retry")
	case errors.As(err, &stuck):
		writeError(w, http.StatusBadGateway, "server_error", "llama-server hung and was restarted; retry")
	default:
		writeError(w, http.StatusBadGateway, "server_error", "llama-server did not answer")
	}
}
