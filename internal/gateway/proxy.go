package gateway

import (
	"context"
	"errors"
	"net/http"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// roundTripperFunc is a function that implements http.RoundTripper.
type roundTripperFunc func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripperFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// roundTrip sends a request through the backend's own transport.
func (g *Gateway) roundTrip(r *http.Request) (*http.Response, error) {
	return exchangeOf(r.Context()).lease.Backend().HTTPClient().Transport.RoundTrip(r)
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
	g.recordCrash(r.Context(), err)
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
