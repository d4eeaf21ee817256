package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// proxy sends a request to the backend, and its answer to the client.
func (g *Gateway) proxy(w http.ResponseWriter, r *http.Request) {
	res, err := g.send(r)
	if err == nil && res.StatusCode == http.StatusSwitchingProtocols {
		err = errors.Join(errors.New("it changes the protocol"), res.Body.Close())
	}
	if err != nil {
		g.handleProxyError(w, r, err)
		return
	}
	defer func() { _ = res.Body.Close() }()
	copyHeaders(w.Header(), res.Header, responseHeaders())
	w.WriteHeader(res.StatusCode)
	if err := g.copyAnswer(w, r, res); err != nil && r.Context().Value(http.ServerContextKey) != nil {
		panic(http.ErrAbortHandler) // the client must not take the beginning for the whole
	}
}

// send sends a request through the backend's own transport.
func (g *Gateway) send(r *http.Request) (*http.Response, error) {
	backend := exchangeOf(r.Context()).lease.Backend()
	target, err := url.Parse(backend.BaseURL())
	if err != nil {
		return nil, fmt.Errorf("address of llama-server: %w", err)
	}
	u := &url.URL{Scheme: target.Scheme, Host: target.Host, Path: target.Path + r.URL.Path, RawQuery: forwardedQuery(r.URL)}
	if r.URL.RawPath != "" {
		u.RawPath = target.EscapedPath() + r.URL.RawPath
	}
	out := (&http.Request{
		Method: r.Method, URL: u, Host: target.Host, Header: http.Header{"User-Agent": nil}, // not net/http's default either
		Body: r.Body, GetBody: r.GetBody, ContentLength: r.ContentLength, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(supervise.WithWork(r.Context(), g.workOf(r)))
	if out.ContentLength == 0 {
		out.Body = nil
	}
	copyHeaders(out.Header, r.Header, requestHeaders())
	return backend.HTTPClient().Transport.RoundTrip(out)
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

// headDelay is how long the head of an answer waits for the first bytes of its body: both
// then reach the client together.
const headDelay = 2 * time.Millisecond

// buffers are those of copyAnswer.
var buffers = sync.Pool{New: func() any { return new([8 << 10]byte) }}

// copyAnswer copies the body of an answer as it arrives.
func (g *Gateway) copyAnswer(w http.ResponseWriter, r *http.Request, res *http.Response) error {
	control := http.NewResponseController(w)
	var mu sync.Mutex // of head
	head := true      // is to be sent
	timer := time.AfterFunc(headDelay, func() {
		mu.Lock()
		defer mu.Unlock()
		if head {
			head = false
			_ = control.Flush()
		}
	})
	defer timer.Stop()
	begin := func() {
		timer.Stop()
		mu.Lock()
		defer mu.Unlock()
		head = false
	}
	buf, _ := buffers.Get().(*[8 << 10]byte) // the pool has nothing else
	defer buffers.Put(buf)
	defer begin() // the timer's function has returned
	for waits := true; ; {
		n, err := res.Body.Read(buf[:])
		if waits {
			begin()
			waits = false
		}
		if err != nil {
			g.noteEnd(r, err)
		}
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			_ = control.Flush() // the next write reports an error
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// noteEnd notes how the body of an answer ended: io.EOF, or the error that broke it off.
func (g *Gateway) noteEnd(r *http.Request, err error) {
	o := &exchangeOf(r.Context()).observed
	if errors.Is(err, io.EOF) {
		o.whole = true
		return
	}
	o.broken = err
	g.recordCrash(r, err, true)
}
