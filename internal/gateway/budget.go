package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

var (
	errNoToken      = errors.New("the request took too long without a token; it was ended")
	errLongResponse = errors.New("the response grew too large; it was ended")
)

// limitResponse gives each request a budget: time until its answer begins, time
// between tokens, and bytes. What exceeds it is ended first; the process only when
// it does not react either, see checkBackend.
func (g *Gateway) limitResponse(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		b := &budgetWriter{ResponseWriter: w, limits: g.limits, cancel: cancel}
		if g.limits.FirstByte > 0 {
			b.timer = time.AfterFunc(g.limits.FirstByte, func() { cancel(errNoToken) })
			defer b.timer.Stop()
		}
		defer func() {
			cause := context.Cause(ctx)
			if !errors.Is(cause, errNoToken) && !errors.Is(cause, errLongResponse) {
				return // an abort of the proxy goes on as it is
			}
			if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint,err113 // a panic's value
				panic(p)
			}
			exchangeOf(ctx).ended = cause
			g.log.Warn("request ended", "path", r.URL.Path, "cause", cause.Error())
			b.end(cause)
			if errors.Is(cause, errNoToken) {
				go g.checkBackend(exchangeOf(ctx))
			}
		}()
		next.ServeHTTP(b, r.WithContext(ctx))
	})
}

// budgetWriter counts what an answer consists of.
type budgetWriter struct {
	http.ResponseWriter

	limits  Limits
	cancel  context.CancelCauseFunc
	timer   *time.Timer // nil: no limit of time
	written int64
	began   bool
	middle  bool // of a line, so that what comes is no new one
}

// Unwrap lets http.ResponseController flush.
func (b *budgetWriter) Unwrap() http.ResponseWriter { return b.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (b *budgetWriter) WriteHeader(status int) {
	b.began = true
	b.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (b *budgetWriter) Write(p []byte) (int, error) {
	b.began = true
	if b.written += int64(len(p)); b.written > b.limits.ResponseBytes {
		b.cancel(errLongResponse)
		return 0, errLongResponse
	}
	if b.timer != nil && b.hasToken(p) {
		if b.limits.Idle > 0 {
			b.timer.Reset(b.limits.Idle)
		} else {
			b.timer.Stop()
		}
	}
	return b.ResponseWriter.Write(p)
}

// FlushError lets http.ResponseController flush, but not the head of an answer alone, which
// httputil.ReverseProxy asks for in a goroutine of its own: llama-server sends the head
// together with the first token, and so does the gateway.
func (b *budgetWriter) FlushError() error {
	if b.written == 0 {
		return nil
	}
	return http.NewResponseController(b.ResponseWriter).Flush()
}

// hasToken reports whether there is more than comments in a piece of a stream:
// llama-server sends ": ping" while it computes nothing.
func (b *budgetWriter) hasToken(p []byte) bool {
	found := false
	for line := range bytes.Lines(p) {
		comment := !b.middle && (line[0] == ':' || line[0] == '\n' || line[0] == '\r')
		b.middle = line[len(line)-1] != '\n'
		found = found || !comment
	}
	return found
}

// end reports the cause to the client: as the answer if nothing was sent yet, or as the last
// event of a stream. Another answer is cut off.
func (b *budgetWriter) end(cause error) {
	stream := strings.HasPrefix(b.Header().Get("Content-Type"), "text/event-stream")
	switch {
	case !b.began:
		b.Header().Set("X-Should-Retry", "false")
		writeError(b.ResponseWriter, http.StatusGatewayTimeout, "timeout_error", cause.Error())
	case stream:
		if raw, err := json.Marshal(errorObject(http.StatusGatewayTimeout, "timeout_error", cause.Error())); err == nil {
			_, _ = fmt.Fprintf(b.ResponseWriter, "\n\ndata: %s\n\n", raw)
		}
	default:
		panic(http.ErrAbortHandler)
	}
}

// checkBackend restarts llama-server if it does not react within Limits.Reclaim
// after a request was ended. /slots is answered by the thread that computes: a
// sampler that is stuck keeps it from that for good, a slow prompt for one batch.
func (g *Gateway) checkBackend(x *exchange) {
	if g.restart == nil || !x.served.checking.TryLock() {
		return
	}
	defer x.served.checking.Unlock()
	b := x.lease.Backend()
	ctx, cancel := context.WithTimeout(context.Background(), g.limits.Reclaim)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.BaseURL()+"/slots", nil)
	if err != nil {
		return
	}
	res, err := b.HTTPClient().Do(req)
	if err == nil {
		_ = res.Body.Close()
		return
	}
	if ctx.Err() != nil && b.State() != supervise.Starting && b.State() != supervise.Loading {
		g.log.Error("llama-server does not react after a request was ended; restarting it")
		g.crashes.record(x.client, time.Now())
		g.restart(x.lease.Model())
	}
}

const (
	// crashWindow is how long a crash counts for the clients whose requests ran.
	crashWindow = 10 * time.Minute
	// crashPause is how long a client waits after its second crash; twice as long
	// after each further one, crashPauseMax at most.
	crashPause    = time.Minute
	crashPauseMax = crashWindow
)

// crashes counts, for each client, the crashes of llama-server while one of its requests
// ran. A single crash may have any cause. From the second on, the client has to pause, so
// that it does not keep the process from serving others.
type crashes struct {
	mu      sync.Mutex
	clients map[string]*crashRecord
}

type crashRecord struct {
	count       int
	last, until time.Time
}

// recordCrash counts a crash or hang of llama-server for the client of a request
// that it broke off. A process that was killed from outside counts for nobody, a
// request without a response only for the clients of such requests, and a request that
// only reads is no cause.
func (g *Gateway) recordCrash(r *http.Request, err error, began bool) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return
	}
	var exit *supervise.ExitError
	var hang *supervise.HangError
	if errors.As(err, &hang) && hang.Unanswered && began {
		return
	}
	if (errors.As(err, &exit) || errors.As(err, &hang)) && supervise.IsSuspect(err) {
		g.crashes.record(exchangeOf(r.Context()).client, time.Now())
	}
}

// record counts a crash for a client.
func (c *crashes) record(client string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, r := range c.clients {
		if now.Sub(r.last) > crashWindow {
			delete(c.clients, name)
		}
	}
	r := c.clients[client]
	if r == nil {
		r = &crashRecord{}
		c.clients[client] = r
	}
	r.count++
	r.last = now
	if r.count >= 2 {
		r.until = now.Add(min(crashPause<<min(r.count-2, 8), crashPauseMax))
	}
}

// pause returns how long a client has to wait.
func (c *crashes) pause(client string, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.clients[client]; r != nil {
		return max(0, r.until.Sub(now))
	}
	return 0
}

// limitCrashers rejects requests of clients that have to pause. Requests that need
// no slot pass.
func (g *Gateway) limitCrashers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rt, _ := g.findRoute(r.URL.Path)
		if wait := g.crashes.pause(exchangeOf(r.Context()).client, time.Now()); wait > 0 && !rt.light {
			w.Header().Set("Retry-After", fmt.Sprintf("%.0f", wait.Seconds()+1))
			writeError(w, http.StatusTooManyRequests, "rate_limit_error", "llama-server crashed repeatedly while it handled your requests; retry later")
			return
		}
		next.ServeHTTP(w, r)
	})
}
