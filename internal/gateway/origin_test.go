package gateway

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// preflight sends the request that a browser sends before a page's request.
func preflight(t *testing.T, url, origin string) response {
	t.Helper()
	return send(t, http.MethodOptions, url, "", "Origin", origin, "Access-Control-Request-Method", "POST",
		"Access-Control-Request-Headers", "authorization,content-type,x-stainless-os", "Access-Control-Request-Private-Network", "true")
}

func TestPagesThatMayReadAnswers(t *testing.T) {
	t.Parallel()
	const page, local = "https://chat.example", "http://localhost:3000"
	for name, tt := range map[string]struct {
		keys, origins []string
		origin        string
		allowed       bool
		status        int // of a request with the key
	}{
		"with a key, any page":       {keys: []string{"k"}, origin: page, allowed: true, status: 200},
		"with a key, an opaque one":  {keys: []string{"k"}, origin: "null", allowed: true, status: 200},
		"with a list, one of it":     {keys: []string{"k"}, origins: []string{page}, origin: page, allowed: true, status: 200},
		"with a list, another":       {keys: []string{"k"}, origins: []string{page}, origin: "https://evil.example", status: 200},
		"with a list, another port":  {keys: []string{"k"}, origins: []string{page}, origin: page + ":8443", status: 200},
		"with a list, this machine":  {keys: []string{"k"}, origins: []string{page}, origin: local, allowed: true, status: 200},
		"with a star":                {keys: []string{"k"}, origins: []string{"*"}, origin: page, allowed: true, status: 200},
		"without a key, any page":    {origin: page, status: 403},
		"without a key, local":       {origin: local, allowed: true, status: 200},
		"without a key, opaque":      {origin: "null", status: 403},
		"without a key, a file":      {origin: "file://localhost", status: 403},
		"without a key, a extension": {origin: "chrome-extension://abc", status: 403},
	} {
		g := newGateway(t, newFakeBackend(t, fakellama.Script{}), tt.keys...)
		g.origins = tt.origins
		url := serveGateway(t, g)
		want := ""
		if tt.allowed {
			want = tt.origin
		}
		before := preflight(t, url+"/v1/chat/completions", tt.origin)
		if got := before.header.Get("Access-Control-Allow-Origin"); got != want || (before.status == 204) != tt.allowed {
			t.Errorf("%s: preflight %d for %q", name, before.status, got)
		}
		if tt.allowed && (before.header.Get("Access-Control-Allow-Methods") != "POST" || before.header.Get("Access-Control-Allow-Headers") != "authorization,content-type,x-stainless-os" ||
			before.header.Get("Access-Control-Allow-Private-Network") != "true" || before.header.Get("Vary") != "Origin") {
			t.Errorf("%s: preflight %v", name, before.header)
		}
		for path, status := range map[string]int{"/v1/models": tt.status, "/health": 0, "/nothing": 0} {
			got := send(t, "GET", url+path, "", "Origin", tt.origin, "Authorization", "Bearer k")
			if got.header.Get("Access-Control-Allow-Origin") != want || got.header.Get("Access-Control-Allow-Credentials") != "" || status != 0 && got.status != status {
				t.Errorf("%s: %s is %d, %v", name, path, got.status, got.header)
			}
		}
		if len(tt.keys) > 0 {
			if got := send(t, "GET", url+"/v1/models", "", "Origin", tt.origin); got.status != 401 || got.header.Get("Access-Control-Allow-Origin") != want {
				t.Errorf("%s: without the key %d, %v", name, got.status, got.header)
			}
		}
	}
}

// A page from a host name that resolves to this machine is not a page of this machine.
func TestPreflightOfARebindingPageIsRejected(t *testing.T) {
	t.Parallel()
	url := serveGateway(t, newGateway(t, nil))
	if got := send(t, http.MethodOptions, url+"/v1/models", "", "Origin", "http://localhost", "Host", "evil.example", "Access-Control-Request-Method", "GET"); got.status != 403 {
		t.Errorf("%d", got.status)
	}
}

func TestPreflightNeedsNoBackend(t *testing.T) {
	t.Parallel()
	g := newGateway(t, nil)
	g.log = slog.New(slog.DiscardHandler)
	if got := preflight(t, serveGateway(t, g)+"/v1/models", "http://127.0.0.1:3000"); got.status != 204 {
		t.Errorf("%d", got.status)
	}
}

func TestCheckOrigins(t *testing.T) {
	t.Parallel()
	if err := CheckOrigins([]string{"*", "https://chat.example", "http://[::1]:80", "chrome-extension://abc"}); err != nil {
		t.Error(err)
	}
	for _, origin := range []string{"", "chat.example", "https://chat.example/", "https://u@chat.example", "https://chat.example?x", "null"} {
		if CheckOrigins([]string{origin}) == nil {
			t.Errorf("%q is accepted", origin)
		}
	}
}

// A web page that points its own name to this machine does not read the metrics.
func TestRejectPages(t *testing.T) {
	t.Parallel()
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9090}
	for name, tt := range map[string]struct {
		listen, host, origin string
		at                   net.Addr
		want                 int
	}{
		"Prometheus":            {"127.0.0.1:9090", "127.0.0.1:9090", "", local, 200},
		"by name":               {"localhost:9090", "LOCALHOST:9090", "", local, 200},
		"a socket":              {"unix:/run/m.sock", "any.example", "", &net.UnixAddr{Name: "/run/m.sock"}, 200},
		"a rebound name":        {"127.0.0.1:9090", "rebound.example:9090", "", local, 403},
		"a page":                {"127.0.0.1:9090", "127.0.0.1:9090", "https://page.example", local, 403},
		"for other machines":    {"0.0.0.0:9090", "card.example:9090", "", &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, 200},
		"by the machine's name": {":9090", "card:9090", "", &net.TCPAddr{IP: net.IPv4(127, 0, 1, 1)}, 200},
	} {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil).WithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, tt.at))
		r.Host = tt.host
		if tt.origin != "" {
			r.Header.Set("Origin", tt.origin)
		}
		w := httptest.NewRecorder()
		RejectPages(tt.listen, next).ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("%s: %d, want %d", name, w.Code, tt.want)
		}
	}
}
