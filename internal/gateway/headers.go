package gateway

import (
	"net/http"
	"net/url"
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

// copyHeaders adds the allowed headers of from to a header.
func copyHeaders(to, from http.Header, allowed []string) {
	for _, name := range allowed {
		if values := from[name]; len(values) > 0 {
			to[name] = append(to[name], values...)
		}
	}
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
