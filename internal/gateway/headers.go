package gateway

import (
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
)

// requestHeaders returns the headers that reach llama-server. It needs no other:
// validateRequest sets the type of a body, the backend's client its own key.
//
// Left out on purpose, besides credentials: X-Conversation-Id, with which
// llama-server v0.5.0 (server-stream.cpp) goes on generating after the client has
// left, keeps up to 4 MiB for each value, and ends the stream of another client
// that sent the same value; Expect, whose interim answer the gateway has sent
// already; Accept-Encoding, since answers are not compressed.
func requestHeaders() []string { return []string{"Accept", "Content-Type"} }

// responseHeaders returns the headers of llama-server that reach clients. CORS
// headers and errors are the gateway's own.
func responseHeaders() []string {
	return []string{"Cache-Control", "Content-Length", "Content-Type", "Process-Start-Time-Unix", "X-Accel-Buffering"}
}

// keepHeaders deletes all headers but those in allowed.
func keepHeaders(h http.Header, allowed []string) {
	for name := range h {
		if !slices.Contains(allowed, name) {
			h.Del(name)
			delete(h, name) // a name that is not in its canonical form
		}
	}
}

// rewrite addresses the request to the backend.
func (g *Gateway) rewrite(p *httputil.ProxyRequest) {
	target, err := url.Parse(exchangeOf(p.In.Context()).lease.Backend().BaseURL())
	if err != nil {
		return // the transport reports the request without a host
	}
	p.SetURL(target)
	p.Out.Host = target.Host
	p.Out.URL.RawQuery = forwardedQuery(p.In.URL)
	p.Out.GetBody = p.In.GetBody
	p.Out.Trailer = nil
	keepHeaders(p.Out.Header, requestHeaders())
	p.Out.Header["User-Agent"] = nil // not net/http's default either
}

// forwardedQuery returns the parameters of a query that llama-server reads on the
// forwarded routes: ?action=save of a slot, and ?fail_on_no_slot=1 of /slots.
func forwardedQuery(u *url.URL) string {
	out := url.Values{}
	for _, name := range []string{"action", "fail_on_no_slot"} {
		if u.Query().Has(name) {
			out.Set(name, u.Query().Get(name))
		}
	}
	return out.Encode()
}

// filterResponse is ReverseProxy.ModifyResponse.
func (g *Gateway) filterResponse(res *http.Response) error {
	keepHeaders(res.Header, responseHeaders())
	res.Trailer = nil
	o := &exchangeOf(res.Request.Context()).observed
	res.Body = &watchedBody{res.Body, func(err error) {
		if errors.Is(err, io.EOF) {
			o.whole = true
			return
		}
		o.broken = err
		g.recordCrash(res.Request, err, true)
	}}
	return nil
}

// watchedBody reports the end of an answer, io.EOF or the error that breaks it off.
type watchedBody struct {
	io.ReadCloser

	ended func(error)
}

// Read implements io.Reader.
func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.ended(err)
	}
	return n, err
}
