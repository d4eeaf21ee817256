package gateway

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

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

// isSameMachine reports whether Origin and Host name this machine.
func isSameMachine(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || !isLoopbackHost(u.Host) {
			return false
		}
	}
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && addr.Network() == "unix" {
		return true // a page cannot reach a unix socket, and Host is arbitrary there
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
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".") // a name's root dot
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
