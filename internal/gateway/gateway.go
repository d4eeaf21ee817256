// Package gateway is the HTTP server in front of llama-server: a reverse proxy
// that authenticates clients and forwards only what llama-server can bear.
//
// A request passes a chain of middleware, in the order in which New lists them.
// Each part either answers the request itself or calls the next one:
//
//	observe             notes how the request ends, for metrics and the access log
//	allowOrigins        answers CORS preflights, and adds the headers of CORS
//	checkOrigin         rejects web pages where no API key protects the service
//	serveHealth         answers /health from the state of the service
//	servePublicPage     answers for the files of the pages, and for signing in
//	authenticate        compares the client's API key, or that of its session
//	servePage           answers for the pages themselves
//	checkRoute          rejects paths and methods that are not offered
//	serveActivity       answers /activity, and /metrics of the service
//	serveStatus         answers with the data of the page /status
//	track               adds the request to the activity
//	limitKey            rejects requests beyond the limits of a named key
//	limitCrashers       rejects clients whose requests crashed llama-server repeatedly
//	readBody            reads the body into memory, checks and filters its fields
//	routeModel          finds the model that the request names
//	serveModels         answers requests about models
//	answerWhileWaiting  lets a streaming client wait without silence
//	beginWait           notes when the request begins to wait
//	acquireModel        leases the model, which is loaded if necessary
//	limitRequests       lets no more requests pass than llama-server has slots
//	endWait             notes when the request has its model and a slot
//	serveModel          answers /v1/models/NAME for a single model
//	limitResponse       ends a request that takes too long or answers too much
//	countTokens         counts tokens, for the activity and for keys that have a budget
//	proxy               sends the request to the backend
//
// The package starts no process and reads no command line: a Backend can be an
// httptest.Server, and Models a fake.
package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"sync"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/activity"
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

// Gateway is the http.Handler in front of the backends.
type Gateway struct {
	models       Models
	single       *singleModel // models, where Options name none
	credentials  *CredentialStore
	origins      []string
	limits       Limits
	routes       map[string]route
	slotRoute    route
	memory       *bodyMemory
	pace         bodyPace
	crashes      crashes
	keys         *keyLimits
	watchers     watchers // of the models and of the activity
	activity     *activity.Log
	sampler      *activity.Sampler // nil: none
	metrics      Metrics           // nil: none
	accessLog    func(*activity.Record)
	page         Page // nil: none
	noStatusPage bool
	sessions     *sessions
	restart      func(model string)
	reload       func(context.Context)
	log          *slog.Logger
	handler      http.Handler

	closing context.Context // done when Close is called
	close   context.CancelFunc
	running sync.WaitGroup // what background started

	mu       sync.Mutex
	served   map[string]*servedModel // by name
	reloaded chan struct{}           // closed by ModelsReloaded
}

// Options configure a gateway.
type Options struct {
	Credentials *CredentialStore
	// Models are the models that clients can use; nil: the one of SetBackend.
	Models Models
	// Origins are the web pages that may use the service besides those of this
	// machine, such as "https://chat.example"; "*" for all. See allowOrigins.
	Origins []string
	Limits  Limits
	// UsageFile is where the tokens that keys have used on the current day are kept;
	// empty: a restart forgets them.
	UsageFile string
	// Activity has the requests; nil: a log of the default size.
	Activity *activity.Log
	// Sampler has the samples of the last minutes; nil: /activity has none.
	Sampler *activity.Sampler
	// Metrics count requests; nil: GET /metrics is that of the only model.
	Metrics Metrics
	// AccessLog is called at the end of each request; nil: it is not. It must not keep
	// the record.
	AccessLog func(*activity.Record)
	// Restart restarts the process of a model; nil: it is left alone.
	Restart func(model string)
	// Page is what people see in a browser; nil: no page.
	Page Page
	// NoStatusPage leaves out the page /status. Without any page there is no way to
	// sign in.
	NoStatusPage bool
	// Reload reads the settings of the models again, and returns when they are applied
	// or found to be invalid; nil: nothing is read.
	Reload func(ctx context.Context)
	Log    *slog.Logger
}

// New returns a gateway. Without Options.Models it answers 503 until SetBackend is
// called.
func New(o Options) *Gateway {
	limits, log := o.Limits.withDefaults(), o.Log
	closing, cancel := context.WithCancel(context.Background())
	g := &Gateway{
		closing: closing, close: cancel, keys: newKeyLimits(openUsage(o.UsageFile, log)),
		page: o.Page, noStatusPage: o.NoStatusPage, sessions: newSessions(),
		models: o.Models, served: map[string]*servedModel{},
		credentials: o.Credentials, origins: o.Origins, limits: limits, log: log, restart: o.Restart, reload: o.Reload, reloaded: make(chan struct{}),
		crashes: crashes{clients: map[string]*crashRecord{}},
		routes:  routes(), slotRoute: route{method: http.MethodPost, fields: slotFields()},
		memory:   newBodyMemory(limits.BodyMemory, limits.BodyMemoryPerClient),
		pace:     bodyPace{limits.BodyGrace, float64(limits.BodyRate)},
		activity: o.Activity, sampler: o.Sampler, metrics: o.Metrics, accessLog: o.AccessLog,
	}
	if g.activity == nil {
		g.activity = activity.NewLog(activity.Options{})
	}
	if g.models == nil {
		g.single = newSingleModel()
		g.models = g.single
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
		g.observe,
		g.allowOrigins,
		g.checkOrigin,
		g.serveHealth,
		g.servePublicPage,
		g.authenticate,
		g.servePage,
		g.checkRoute,
		g.serveActivity,
		g.serveStatus,
		g.track,
		g.limitKey,
		g.limitCrashers,
		g.readBody,
		g.routeModel,
		g.serveModels,
		g.answerWhileWaiting,
		g.beginWait,
		g.acquireModel,
		g.limitRequests,
		g.endWait,
		g.serveModel,
		g.limitResponse,
		g.countTokens,
	)
	return g
}

// SetBackend forwards requests to b from now on, at most slots of them side by
// side; 0 means 4, llama-server's own number. The gateway must have been made
// without Options.Models.
func (g *Gateway) SetBackend(b Backend, slots int) { g.SetModel(rocm.ModelStatus{}, b, slots) }

// SetModel is SetBackend with what is known of the model. Its name and aliases
// count for the keys that may not use all models.
func (g *Gateway) SetModel(m rocm.ModelStatus, b Backend, slots int) { g.single.set(m, b, slots) }

// Shutdown ends the streams of /models/sse, and the loads and unloads that no client
// waits for. Other requests go on. It is for http.Server.RegisterOnShutdown.
func (g *Gateway) Shutdown() { g.close() }

// Close is Shutdown; it also waits for what has ended, and writes the file of used
// tokens. Call it when the server has shut down.
func (g *Gateway) Close() {
	g.close()
	g.running.Wait()
	g.keys.usage.close()
}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, &exchange{})))
}

// exchangeKey is the key of a context's value: its exchange.
type exchangeKey struct{}

// exchange is what the parts of the chain know of a request.
type exchange struct {
	// Set by authenticate.
	credential credential // zero: there are no keys
	key        *Key       // nil: none, or one without limits
	client     string
	signedIn   bool // the key is that of a session

	// Set by readBody.
	name    string // of the model, "": the body names none
	stream  bool   // the client asked for a stream of events
	wait    bool   // for the end of a load or unload
	body    int64  // its bytes
	answers int64  // that the client asked for in one, 0: one
	prompts int64  // the same; each is a task of its own, and tasks wait for each other

	model   rocm.ModelStatus // set by routeModel
	waiting *waitingWriter   // set by answerWhileWaiting; nil: none
	lease   Lease            // set by acquireModel
	served  *servedModel     // of the lease
	ended   error            // why limitResponse ended it, nil: it did not

	observed observation
}

// exchangeOf returns the exchange of a request's context.
func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// middleware wraps a handler.
type middleware func(next http.Handler) http.Handler

// chain returns last behind the parts; the first part sees a request first.
func chain(last http.Handler, parts ...middleware) http.Handler {
	for i := len(parts) - 1; i >= 0; i-- {
		last = parts[i](last)
	}
	return last
}
