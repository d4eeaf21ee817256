// Package gateway is the HTTP server in front of llama-server: a reverse proxy
// that authenticates clients and forwards only what llama-server can bear.
//
// A request passes a chain of middleware, in the order in which New lists them.
// Each part either answers the request itself or calls the next one:
//
//	allowOrigins    answers CORS preflights, and adds the headers of CORS
//	checkOrigin     rejects web pages where no API key protects the service
//	serveHealth     answers /health from the state of the backend
//	authenticate    compares the client's API key
//	checkRoute      rejects paths and methods that are not offered
//	requireBackend  answers 503 until a backend is set
//	limitCrashers   rejects clients whose requests crashed llama-server repeatedly
//	readBody        reads the body into memory, checks and filters its fields
//	limitRequests   lets no more requests pass than llama-server has slots
//	serveModel      answers /v1/models/NAME
//	limitResponse   ends a request that takes too long or answers too much
//	proxy           sends the request to the backend
//
// The package starts no process and reads no command line: a Backend can be an
// httptest.Server.
package gateway

import (
	"cmp"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"sync"
	"sync/atomic"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Backend answers the requests that pass. *supervise.Child implements it.
type Backend interface {
	// BaseURL returns the URL that request paths are appended to.
	BaseURL() string
	// HTTPClient returns the client that reaches BaseURL. It authenticates
	// itself: the gateway removes the client's key from every request.
	HTTPClient() *http.Client
	// State returns the state of the process behind BaseURL.
	State() supervise.State
}

// Gateway is the http.Handler in front of a backend.
type Gateway struct {
	credentials *CredentialStore
	origins     []string
	limits      Limits
	routes      map[string]route
	slotRoute   route
	memory      *bodyMemory
	pace        bodyPace
	heavy       *queue // requests that need a slot
	light       *queue
	crashes     crashes
	restart     func()
	checking    sync.Mutex // held by checkBackend
	log         *slog.Logger
	backend     atomic.Pointer[Backend]
	handler     http.Handler
}

// Options configure a gateway.
type Options struct {
	Credentials *CredentialStore
	// Origins are the web pages that may use the service besides those of this
	// machine, such as "https://chat.example"; "*" for all. See allowOrigins.
	Origins []string
	Limits  Limits
	// Restart restarts the backend's process; nil: it is left alone.
	Restart func()
	Log     *slog.Logger
}

// New returns a gateway that answers 503 until SetBackend is called.
func New(o Options) *Gateway {
	limits, log := o.Limits.withDefaults(), o.Log
	g := &Gateway{
		credentials: o.Credentials, origins: o.Origins, limits: limits, log: log, restart: o.Restart,
		crashes: crashes{clients: map[string]*crashRecord{}},
		routes:  routes(), slotRoute: route{method: http.MethodPost, fields: slotFields()},
		memory: newBodyMemory(limits.BodyMemory, limits.BodyMemoryPerClient),
		pace:   bodyPace{limits.BodyGrace, float64(limits.BodyRate)},
		heavy:  newQueue(defaultSlots, limits.Queue, limits.QueuePerClient),
		light:  newQueue(lightRequests, limits.Queue, limits.QueuePerClient),
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:        g.rewrite,
		ModifyResponse: g.filterResponse,
		FlushInterval:  -1, // tokens reach the client at once
		ErrorHandler:   g.handleProxyError,
		Transport:      roundTripperFunc(g.roundTrip),
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	g.handler = chain(proxy,
		g.allowOrigins,
		g.checkOrigin,
		g.serveHealth,
		g.authenticate,
		g.checkRoute,
		g.requireBackend,
		g.limitCrashers,
		g.readBody,
		g.limitRequests,
		g.serveModel,
		g.limitResponse,
	)
	return g
}

// SetBackend forwards requests to b from now on, at most slots of them side by
// side; 0 means 4, llama-server's own number.
func (g *Gateway) SetBackend(b Backend, slots int) {
	g.heavy.setPlaces(cmp.Or(slots, defaultSlots))
	g.backend.Store(&b)
}

// currentBackend returns the backend, nil before SetBackend.
func (g *Gateway) currentBackend() Backend {
	if b := g.backend.Load(); b != nil {
		return *b
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.handler.ServeHTTP(w, r) }

// middleware wraps a handler.
type middleware func(next http.Handler) http.Handler

// chain returns last behind the parts; the first part sees a request first.
func chain(last http.Handler, parts ...middleware) http.Handler {
	for i := len(parts) - 1; i >= 0; i-- {
		last = parts[i](last)
	}
	return last
}

// serveHealth answers /health from the state of the supervised process, which
// says more than llama-server's own /health.
func (g *Gateway) serveHealth(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" && r.URL.Path != "/v1/health" {
			next.ServeHTTP(w, r)
			return
		}
		b := g.currentBackend()
		if b == nil {
			writeLoading(w)
			return
		}
		switch state := b.State(); state {
		case supervise.Ready:
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"status":"ok"}`)
		case supervise.Starting, supervise.Loading:
			writeLoading(w)
		default:
			writeError(w, http.StatusServiceUnavailable, "unavailable_error", "llama-server is "+state.String())
		}
	})
}

// requireBackend answers 503 until the model is loaded.
func (g *Gateway) requireBackend(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.currentBackend() == nil {
			writeLoading(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}
