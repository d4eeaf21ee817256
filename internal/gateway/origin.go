package gateway

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// allowOrigins implements CORS: which web pages may read the gateway's answers,
// its own errors included.
//
// Pages of this machine may always. With an API key, all pages may, unless Origins
// lists some: a key travels in a header that a page must set itself, so that an
// origin proves nothing that the key does not. Without a key, Origins is empty.
// Cookies and other credentials of the browser are never asked for.
func (g *Gateway) allowOrigins(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		if origin == "" {
			next.ServeHTTP(w, r)
			return
		}
		h := w.Header()
		h.Add("Vary", "Origin")
		if !g.originAllowed(origin) {
			next.ServeHTTP(w, r) // checkOrigin decides, and the browser hides the answer
			return
		}
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "Retry-After, X-Should-Retry")
		if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
			next.ServeHTTP(w, r)
			return
		}
		if !g.credentials.HasKeys() && !isSameMachine(r) {
			next.ServeHTTP(w, r) // rejected by checkOrigin
			return
		}
		rt, ok := g.findRoute(r.URL.Path)
		if !ok {
			rt = route{method: http.MethodGet} // /health, or an answer 404 that the page can read
		}
		h.Set("Access-Control-Allow-Methods", rt.method)
		if names := r.Header.Get("Access-Control-Request-Headers"); names != "" {
			h.Set("Access-Control-Allow-Headers", names)
		}
		if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
			h.Set("Access-Control-Allow-Private-Network", "true")
		}
		h.Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
	})
}

// originAllowed reports whether a page of that origin may read answers.
func (g *Gateway) originAllowed(origin string) bool {
	switch {
	case slices.Contains(g.origins, "*"), slices.ContainsFunc(g.origins, func(o string) bool { return strings.EqualFold(o, origin) }):
		return true
	case len(g.origins) == 0 && g.credentials.HasKeys():
		return true
	}
	return isLocalOrigin(origin)
}

// isLocalOrigin reports whether an origin is a page of this machine.
func isLocalOrigin(origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && isLoopbackHost(u.Host)
}

// CheckOrigins reports a value that is not the origin of a web page.
func CheckOrigins(origins []string) error {
	for _, o := range origins {
		if o == "*" {
			continue
		}
		u, err := url.Parse(o)
		if err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return &originError{o}
		}
	}
	return nil
}

type originError struct{ origin string }

// Error implements error.
func (e *originError) Error() string {
	return "\"" + e.origin + "\" is not an origin; write scheme://host[:port], for example https://chat.example, or *"
}

// checkOrigin rejects web pages where no API key does. A page in a browser on
// this machine can send requests to a loopback address, which its Origin header
// shows, and can point its own host name there (DNS rebinding), which the Host
// header shows.
func (g *Gateway) checkOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.credentials.HasKeys() && !isSameMachine(r) {
			writeError(w, http.StatusForbidden, "permission_error", "requests from other origins need an API key")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// RejectPages is checkOrigin for a handler without keys that listens on an address: where
// that is this machine's alone, web pages of other origins are rejected. Elsewhere
// next answers everybody.
func RejectPages(address string, next http.Handler) http.Handler {
	if local, err := IsLocal(address); err != nil || !local {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isSameMachine(r) {
			writeError(w, http.StatusForbidden, "permission_error", "requests from other origins are rejected")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isSameMachine reports whether Origin, Host and the address of the service name this
// machine.
func isSameMachine(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" && !isLocalOrigin(origin) {
		return false
	}
	switch addr := r.Context().Value(http.LocalAddrContextKey).(type) {
	case *net.UnixAddr:
		return true // a page cannot reach a unix socket, and Host is arbitrary there
	case *net.TCPAddr:
		return addr.IP.IsLoopback() && isLoopbackHost(r.Host) // a program may write any Host
	}
	return isLoopbackHost(r.Host)
}

// isLoopbackHost reports whether a host, with or without a port, is a loopback
// address or "localhost". Host names are case-insensitive and may be written with
// the dot of the root (RFC 9110 4.2.3, RFC 3986 3.2.2).
func isLoopbackHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
