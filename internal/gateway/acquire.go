package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm"
)

// servedModel is what the gateway keeps for a model.
type servedModel struct {
	heavy    *queue     // requests that need a slot
	light    *queue     // other ones
	checking sync.Mutex // held by checkBackend
}

// servedModel returns what is kept for the model of a lease.
func (g *Gateway) servedModel(l Lease) *servedModel {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.served[l.Model()]
	if s == nil {
		s = &servedModel{
			heavy: newQueue(defaultSlots, g.limits.Queue, g.limits.QueuePerClient),
			light: newQueue(lightRequests, g.limits.Queue, g.limits.QueuePerClient),
		}
		g.served[l.Model()] = s
	}
	s.heavy.setPlaces(cmp.Or(l.Slots(), defaultSlots))
	return s
}

// errLoadWait is the cause that ends the wait for a model.
var errLoadWait = errors.New("the model did not become available in time; retry later")

// acquireModel leases the model for the time of the request.
func (g *Gateway) acquireModel(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r.Context())
		ctx, cancel := context.WithTimeoutCause(r.Context(), g.limits.LoadWait, errLoadWait)
		defer cancel()
		request := rocm.AcquireRequest{
			Name: x.model.Name, Client: x.client, Priority: x.key.priority(), LoadedOnly: loadedOnly(r), Progress: x.waiting.report,
		}
		var lease Lease
		var err error
		x.waiting.while(func() { lease, err = g.models.Acquire(ctx, request) })
		if err != nil {
			if errors.Is(context.Cause(ctx), errLoadWait) {
				err = errLoadWait
			}
			g.rejectModel(w, r, err)
			return
		}
		defer lease.Release()
		x.lease, x.served = lease, g.servedModel(lease)
		next.ServeHTTP(w, r)
	})
}

// loadedOnly reports whether a request must not load the model: one that only
// looks, unless it says ?autoload=true, and each that says ?autoload=false, as
// llama-server's router has it. So a scraper of /metrics keeps no model loaded.
func loadedOnly(r *http.Request) bool {
	switch r.URL.Query().Get("autoload") {
	case "true", "1":
		return false
	case "":
		return r.Method != http.MethodPost
	}
	return true
}

// rejectModel answers a request for a model that cannot be had.
func (g *Gateway) rejectModel(w http.ResponseWriter, r *http.Request, err error) {
	var full *QueueFullError
	var room *NoRoomError
	var load *LoadError
	switch {
	case r.Context().Err() != nil: // the client has disconnected
	case errors.Is(err, ErrLoading):
		writeLoading(w)
	case errors.Is(err, errLoadWait):
		setRetryAfter(w, 10*time.Second)
		writeError(w, http.StatusServiceUnavailable, "unavailable_error", err.Error())
	case errors.Is(err, ErrUnloaded):
		setRetryAfter(w, time.Second)
		writeError(w, http.StatusServiceUnavailable, "unavailable_error", err.Error())
	case errors.Is(err, ErrUnknownModel):
		writeError(w, http.StatusNotFound, "not_found_error", err.Error())
	case errors.Is(err, ErrNoModelName):
		writeError(w, http.StatusBadRequest, "invalid_request_error", "model name is missing from the request; GET /v1/models lists the names")
	case errors.Is(err, ErrNotLoaded), errors.Is(err, ErrOnlyModel):
		writeError(w, http.StatusBadRequest, "invalid_request_error", err.Error())
	case errors.As(err, &full):
		setRetryAfter(w, max(full.RetryAfter, 5*time.Second))
		writeError(w, http.StatusTooManyRequests, "rate_limit_error", err.Error())
	case errors.As(err, &room):
		setRetryAfter(w, room.RetryAfter)
		if room.RetryAfter == 0 {
			w.Header().Set("X-Should-Retry", "false")
		}
		writeError(w, http.StatusServiceUnavailable, "unavailable_error", err.Error())
	case errors.As(err, &load):
		g.log.Warn("model not loaded", "model", load.Model, "cause", load.Err.Error())
		setRetryAfter(w, load.RetryAfter)
		writeError(w, http.StatusServiceUnavailable, "unavailable_error", fmt.Sprintf("the model %q could not be loaded; the log of the service says why", load.Model))
	default:
		g.log.Warn("model not available", "path", r.URL.Path, "cause", err.Error())
		writeError(w, http.StatusServiceUnavailable, "unavailable_error", "the model is not available; the log of the service says why")
	}
}

// setRetryAfter sets Retry-After to the time after which the client may retry, in whole
// seconds. 0 sets nothing.
func setRetryAfter(w http.ResponseWriter, wait time.Duration) {
	if wait > 0 {
		w.Header().Set("Retry-After", fmt.Sprintf("%.0f", roundUp(wait).Seconds()))
	}
}
