package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// maxReplay is how much of a body is kept to send it again should llama-server
// die before it answers.
const maxReplay = 16 << 20

// routes are what passes: the endpoints that llama-server v0.5.0 offers by
// default (tools/server/server.cpp). What it only offers when asked (tools, MCP,
// changing its properties) and what concerns its page is not among them.
func routes() map[string]string {
	const get, post = http.MethodGet, http.MethodPost
	return map[string]string{
		"/metrics": get, "/props": get, "/models": get, "/v1/models": get, "/slots": get,
		"/completion": post, "/completions": post, "/v1/completions": post,
		"/chat/completions": post, "/v1/chat/completions": post,
		"/v1/responses": post, "/responses": post, "/v1/messages": post,
		"/v1/audio/transcriptions": post, "/audio/transcriptions": post,
		"/infill": post, "/embedding": post, "/embeddings": post, "/v1/embeddings": post,
		"/rerank": post, "/reranking": post, "/v1/rerank": post, "/v1/reranking": post,
		"/tokenize": post, "/detokenize": post, "/apply-template": post,
		"/chat/completions/input_tokens": post, "/v1/chat/completions/input_tokens": post,
		"/responses/input_tokens": post, "/v1/responses/input_tokens": post,
		"/v1/messages/count_tokens": post, "/lora-adapters": get,
	}
}

// door stands between clients and llama-server: it knows the clients' keys, and
// only it knows llama-server's.
type door struct {
	keeper *keeper
	routes map[string]string
	log    *slog.Logger
	back   atomic.Pointer[rocm.Server]
	proxy  *httputil.ReverseProxy
}

func newDoor(k *keeper, log *slog.Logger) *door {
	d := &door{keeper: k, routes: routes(), log: log}
	d.proxy = &httputil.ReverseProxy{
		Rewrite: d.rewrite, FlushInterval: -1, ErrorHandler: d.failed,
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			return d.back.Load().Child.HTTPClient().Transport.RoundTrip(r)
		}),
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return d
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// open lets requests through to back.
func (d *door) open(back *rocm.Server) { d.back.Store(back) }

// ServeHTTP implements http.Handler.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	who := d.keeper.now.Load()
	if len(who.keys) == 0 && !trusted(r) {
		d.refuse(w, http.StatusForbidden, "permission_error", "without an API key only programs of this machine may ask; a web page needs one")
		return
	}
	if r.URL.Path == "/health" || r.URL.Path == "/v1/health" {
		d.health(w)
		return
	}
	method, known := d.routes[r.URL.Path]
	if r.Method == http.MethodOptions && known && len(who.keys) > 0 && d.back.Load() != nil {
		d.proxy.ServeHTTP(w, r) // a browser asks beforehand, and without the key
		return
	}
	if len(who.keys) > 0 && !who.knows(givenKey(r)) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		d.refuse(w, http.StatusUnauthorized, "authentication_error", "the API key is missing or wrong")
		return
	}
	if strings.HasPrefix(r.URL.Path, "/slots/") && !strings.Contains(r.URL.Path[len("/slots/"):], "/") {
		method, known = http.MethodPost, true // answered only with --slot-dir
	}
	switch {
	case !known:
		d.refuse(w, http.StatusNotFound, "not_found_error", "there is no "+r.URL.Path)
	case r.Method != method && (r.Method != http.MethodHead || method != http.MethodGet):
		w.Header().Set("Allow", method)
		d.refuse(w, http.StatusMethodNotAllowed, "invalid_request_error", r.URL.Path+" takes "+method)
	case d.back.Load() == nil:
		d.loading(w)
	default:
		if err := d.admit(w, r); err != nil {
			d.refuse(w, cmp.Or(refused(err), http.StatusBadRequest), "invalid_request_error", err.Error())
			return
		}
		d.proxy.ServeHTTP(w, r)
	}
}

// admit looks at a request's body, as far as it is kept.
func (d *door) admit(w http.ResponseWriter, r *http.Request) error {
	conversation := r.Method == http.MethodPost && conversational(r.URL.Path)
	if conversation && strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "multipart/") {
		return errEncoded
	}
	if err := bounded(w, r); err != nil {
		return err
	}
	if conversation {
		if err := withoutRemoteMedia(r); err != nil {
			return err
		}
	}
	return replayable(r)
}

// health speaks of the child's state, which knows more than its own /health.
func (d *door) health(w http.ResponseWriter) {
	back := d.back.Load()
	if back == nil {
		d.loading(w)
		return
	}
	switch state := back.Child.State(); state {
	case supervise.Ready:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"status":"ok"}`)
	case supervise.Starting, supervise.Loading:
		d.loading(w)
	default:
		d.refuse(w, http.StatusServiceUnavailable, "unavailable_error", "llama-server is "+state.String())
	}
}

func (d *door) loading(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	d.refuse(w, http.StatusServiceUnavailable, "unavailable_error", "Loading model")
}

// refuse answers in the shape that OpenAI clients and llama-server's know.
func (d *door) refuse(w http.ResponseWriter, status int, kind, message string) {
	raw, err := json.Marshal(map[string]any{"error": map[string]any{"message": message, "type": kind, "code": status}})
	if err != nil {
		raw = []byte(`{}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(raw)
}

// givenKey is the client's.
func givenKey(r *http.Request) string {
	given := r.Header.Get("Authorization")
	if given == "" {
		given = r.Header.Get("X-Api-Key") // Anthropic's header
	}
	return strings.TrimPrefix(given, "Bearer ")
}

// trusted keeps web pages out where no key does: a page may send requests to
// this machine (Origin tells its name), or have its own name lead here (Host
// does).
func trusted(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || !isLoopbackHost(u.Host) {
			return false
		}
	}
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && addr.Network() == "unix" {
		return true // its Host means nothing, and no page reaches it
	}
	return isLoopbackHost(r.Host)
}

func isLoopbackHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// replayable keeps a small body, so that the request can be sent again.
func replayable(r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength > maxReplay {
		return nil
	}
	head, err := io.ReadAll(io.LimitReader(r.Body, maxReplay+1))
	if err != nil {
		return err
	}
	if len(head) > maxReplay {
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(head), r.Body), r.Body}
		return nil
	}
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(head)), nil }
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(head)), int64(len(head))
	return nil
}

// rewrite sends the request to the child, without the client's key: the child's
// own is added by its client.
func (d *door) rewrite(p *httputil.ProxyRequest) {
	to, err := url.Parse(d.back.Load().Child.BaseURL())
	if err != nil {
		return // it is a constant of ours
	}
	p.SetURL(to)
	p.Out.Host = to.Host
	p.Out.GetBody = p.In.GetBody
	for _, h := range []string{"Authorization", "X-Api-Key", "Cookie", "Origin", "Accept-Encoding"} {
		p.Out.Header.Del(h)
	}
}

// failed answers a request that llama-server did not.
func (d *door) failed(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) || r.Context().Err() != nil {
		return // the client has gone
	}
	if status := refused(err); status != 0 {
		d.refuse(w, status, "invalid_request_error", err.Error())
		return
	}
	d.log.Warn("request failed", "path", r.URL.Path, "cause", err.Error())
	var exit *supervise.ExitError
	var stuck *supervise.HangError
	switch {
	case errors.Is(err, supervise.ErrStopped):
		d.refuse(w, http.StatusServiceUnavailable, "unavailable_error", "the server is ending")
	case errors.Is(err, supervise.ErrCrashedTwice):
		w.Header().Set("X-Should-Retry", "false") // clients of OpenAI's API would, by themselves
		d.refuse(w, http.StatusBadGateway, "server_error", "llama-server died twice of this request, or while it was at it; it is being looked after")
	case errors.As(err, &exit):
		// The tail of the log is for the owner of the machine.
		d.refuse(w, http.StatusBadGateway, "server_error", "llama-server died; it is being looked after, try again")
	case errors.As(err, &stuck):
		d.refuse(w, http.StatusBadGateway, "server_error", "llama-server was stuck and was ended; try again")
	default:
		d.refuse(w, http.StatusBadGateway, "server_error", "llama-server did not answer")
	}
}
