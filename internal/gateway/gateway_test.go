package gateway

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/request"
)

// testBackend is a Backend within the test's process.
type testBackend struct {
	srv   *httptest.Server
	state supervise.State
}

func (b *testBackend) BaseURL() string          { return b.srv.URL }
func (b *testBackend) HTTPClient() *http.Client { return b.srv.Client() }
func (b *testBackend) State() supervise.State   { return b.state }

// newBackend returns a backend in the state Ready, with the handler h.
func newBackend(t *testing.T, h http.Handler) *testBackend {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	if transport, ok := srv.Client().Transport.(*http.Transport); ok {
		transport.DisableCompression = true // as in a supervise.Child
	}
	return &testBackend{srv: srv, state: supervise.Ready}
}

// newFakeBackend returns a backend with a fakellama server.
func newFakeBackend(t *testing.T, script fakellama.Script) *testBackend {
	t.Helper()
	fake := fakellama.New(script)
	b := newBackend(t, fake)
	t.Cleanup(fake.Close) // runs first, and releases requests that hang
	return b
}

// newGateway returns a gateway in front of b, which may be nil, with API keys.
func newGateway(t *testing.T, b Backend, keys ...string) *Gateway {
	t.Helper()
	files := CredentialFiles{}
	if len(keys) > 0 {
		files.KeyFile = writeFile(t, "keys", strings.Join(keys, "\n"))
	}
	log := slog.New(slog.DiscardHandler)
	credentials, err := LoadCredentials(files, log)
	if err != nil {
		t.Fatal(err)
	}
	g := New(Options{Credentials: credentials, Log: log})
	if b != nil {
		g.SetBackend(b, 0)
	}
	return g
}

// serveGateway returns the URL of a server of g.
func serveGateway(t *testing.T, g *Gateway) string {
	t.Helper()
	srv := httptest.NewServer(g)
	t.Cleanup(srv.Close)
	return srv.URL
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// response is the answer to a request.
type response struct {
	status int
	header http.Header
	body   string
}

// send sends a request; header contains names and values alternately.
func send(t *testing.T, method, url, body string, header ...string) response {
	t.Helper()
	got, err := request.Send(t.Context(), method, url, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return response{got.Status, got.Header, got.Body}
}

// getAs asks with a key and returns the answer, whose body the test reads as it comes.
func getAs(t *testing.T, url, key string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func TestForwardsOnlyOfferedRoutes(t *testing.T) {
	t.Parallel()
	url := serveGateway(t, newGateway(t, newFakeBackend(t, fakellama.Script{})))
	for name, tt := range map[string]struct {
		method, path string
		status       int
	}{
		"health":            {"GET", "/health", 200},
		"models":            {"GET", "/v1/models", 200},
		"slots":             {"GET", "/slots", 200},
		"tools":             {"GET", "/tools", 404},
		"cors proxy":        {"GET", "/cors-proxy", 404},
		"changing props":    {"POST", "/props", 405},
		"changing adapters": {"POST", "/lora-adapters", 405},
		"below slots":       {"POST", "/slots/0/../../props", 404},
	} {
		if got := send(t, tt.method, url+tt.path, ""); got.status != tt.status {
			t.Errorf("%s: %d, want %d: %s", name, got.status, tt.status, got.body)
		}
	}
	if got := send(t, "POST", url+"/props", ""); got.header.Get("Allow") != "GET" {
		t.Errorf("Allow: %q, want GET", got.header.Get("Allow"))
	}
}

func TestWithoutKeysOnlyThisMachineIsServed(t *testing.T) {
	t.Parallel()
	url := serveGateway(t, newGateway(t, newFakeBackend(t, fakellama.Script{})))
	for name, tt := range map[string]struct {
		header []string
		status int
	}{
		"remote page":   {[]string{"Origin", "http://evil.example"}, 403},
		"opaque origin": {[]string{"Origin", "null"}, 403},
		"local page":    {[]string{"Origin", "http://localhost:3000"}, 200},
		"case of Host":  {[]string{"Host", "LocalHost:80"}, 200},
		"root dot":      {[]string{"Host", "localhost."}, 200},
		"IPv6":          {[]string{"Host", "[::1]:8080"}, 200},
		"mapped IPv4":   {[]string{"Host", "[::ffff:127.0.0.1]"}, 200},
		"loopback.evil": {[]string{"Host", "localhost.evil.example"}, 403},
		"two dots":      {[]string{"Host", "localhost.."}, 403},
		"rebound name":  {[]string{"Host", "evil.example"}, 403},
		"any key":       {[]string{"Authorization", "Bearer whatever"}, 200},
	} {
		if got := send(t, "GET", url+"/v1/models", "", tt.header...); got.status != tt.status {
			t.Errorf("%s: %d, want %d: %s", name, got.status, tt.status, got.body)
		}
	}
}

// A program may write any Host: without keys the address counts that the request came to.
func TestWithoutKeysNoOtherAddressIsServed(t *testing.T) {
	t.Parallel()
	g := newGateway(t, newFakeBackend(t, fakellama.Script{}))
	for address, want := range map[string]int{"127.0.0.1": 200, "::1": 200, "192.0.2.1": 403, "2001:db8::1": 403} {
		r := httptest.NewRequest(http.MethodGet, "http://localhost/v1/models", nil)
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.ParseIP(address), Port: 8080})))
		if w.Code != want {
			t.Errorf("%s: %d, want %d: %s", address, w.Code, want, w.Body)
		}
	}
}

func TestWithKeysEveryRequestNeedsOne(t *testing.T) {
	t.Parallel()
	url := serveGateway(t, newGateway(t, newFakeBackend(t, fakellama.Script{}), "# ours", "first", "", "second"))
	for name, tt := range map[string]struct {
		path   string
		header []string
		status int
	}{
		"none":           {"/v1/models", nil, 401},
		"wrong":          {"/v1/models", []string{"Authorization", "Bearer third"}, 401},
		"empty":          {"/v1/models", []string{"Authorization", "Bearer "}, 401},
		"first":          {"/v1/models", []string{"Authorization", "Bearer first"}, 200},
		"lower case":     {"/v1/models", []string{"Authorization", "bearer first"}, 200},
		"upper case":     {"/v1/models", []string{"Authorization", "BEARER  first"}, 200},
		"bare":           {"/v1/models", []string{"Authorization", "second"}, 200},
		"other scheme":   {"/v1/models", []string{"Authorization", "Basic first"}, 401},
		"x-api-key":      {"/v1/models", []string{"X-Api-Key", "second"}, 200},
		"of a page":      {"/v1/models", []string{"Authorization", "Bearer first", "Origin", "http://page.example"}, 200},
		"unknown path":   {"/nothing", nil, 401},
		"health is open": {"/health", nil, 200},
	} {
		if got := send(t, "GET", url+tt.path, "", tt.header...); got.status != tt.status {
			t.Errorf("%s: %d, want %d: %s", name, got.status, tt.status, got.body)
		}
	}
	if got := send(t, "GET", url+"/v1/models", ""); got.header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("WWW-Authenticate: %q, want Bearer", got.header.Get("WWW-Authenticate"))
	}
}

func TestAnswers503UntilTheModelIsLoaded(t *testing.T) {
	t.Parallel()
	g := newGateway(t, nil)
	url := serveGateway(t, g)
	for _, path := range []string{"/health", "/v1/models"} {
		if got := send(t, "GET", url+path, ""); got.status != 503 || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d, %v; want 503 with Retry-After", path, got.status, got.header)
		}
	}
	g.SetBackend(newFakeBackend(t, fakellama.Script{}), 2)
	for _, path := range []string{"/health", "/v1/models"} {
		if got := send(t, "GET", url+path, ""); got.status != 200 {
			t.Errorf("%s: %d, want 200", path, got.status)
		}
	}
}

func TestHealthFollowsTheState(t *testing.T) {
	t.Parallel()
	for state, status := range map[supervise.State]int{
		supervise.Starting: 503, supervise.Loading: 503, supervise.Ready: 200,
		supervise.Stalled: 503, supervise.Failed: 503, supervise.Stopping: 503,
	} {
		b := newFakeBackend(t, fakellama.Script{})
		b.state = state
		if got := send(t, "GET", serveGateway(t, newGateway(t, b))+"/health", ""); got.status != status {
			t.Errorf("%s: %d, want %d", state, got.status, status)
		}
	}
}

// The type of the body is the only forwarded header of a client; the backend's client
// authenticates itself.
func TestForwardsAllowedHeaders(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	b := newBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header
		w.Header().Set("Server", "llama.cpp")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("X-Accel-Buffering", "no")
		w.Header().Set("X-Request-Id", "of llama-server")
	}))
	url := serveGateway(t, newGateway(t, b, "secret"))
	res := send(t, "POST", url+"/completion?conv_id=a&action=b", `{"prompt":"x"}`, "Authorization", "Bearer secret", "X-Api-Key", "secret",
		"Cookie", "a=secret", "X-Conversation-Id", "a", "Expect", "100-continue", "X-Forwarded-For", "1.2.3.4",
		"Accept-Encoding", "gzip", "User-Agent", "a", "Content-Type", "text/plain", "Upgrade", "h2c", "Connection", "Upgrade")
	for name, values := range <-got {
		switch name {
		case "Content-Type":
			if values[0] != "application/json" {
				t.Errorf("Content-Type %q", values)
			}
		case "Content-Length":
		default:
			t.Errorf("%s: %q was forwarded", name, values)
		}
	}
	for name := range res.header {
		switch name {
		case "Content-Length", "Content-Type", "Date", "X-Accel-Buffering":
		case "X-Request-Id":
			if values := res.header[name]; len(values) != 1 || values[0] == "of llama-server" {
				t.Errorf("X-Request-Id %q", values)
			}
		default:
			t.Errorf("%s: %q came back", name, res.header[name])
		}
	}
}

func TestForwardsAllowedParameters(t *testing.T) {
	t.Parallel()
	b := newBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.RawQuery) }))
	url := serveGateway(t, newGateway(t, b))
	if got := send(t, "GET", url+"/slots?conv_id=a&fail_on_no_slot=1&x=%zz", "").body; got != "fail_on_no_slot=1" {
		t.Errorf("query %q", got)
	}
}

// A client that waits for "100 Continue" gets it once.
func TestContinuesOnce(t *testing.T) {
	t.Parallel()
	b := newBackend(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	host := strings.TrimPrefix(serveGateway(t, newGateway(t, b)), "http://")
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	const body = `{"prompt":"x"}`
	if _, err := io.WriteString(conn, "POST /completion HTTP/1.1\r\nHost: "+host+"\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body); err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(conn)
	if err != nil || strings.Count(string(raw), "100 Continue") != 1 || !strings.Contains(string(raw), "200 OK") {
		t.Errorf("%s, %v", raw, err)
	}
}

func TestServesSingleModels(t *testing.T) {
	t.Parallel()
	url := serveGateway(t, newGateway(t, newFakeBackend(t, fakellama.Script{Alias: "org/small"})))
	got := send(t, "GET", url+"/v1/models/org/small", "")
	if got.status != 200 || !strings.Contains(got.body, `"id":"org/small"`) {
		t.Errorf("%d %s", got.status, got.body)
	}
	for _, name := range []string{"small", "org/small/", "org"} {
		if got := send(t, "GET", url+"/v1/models/"+name, ""); got.status != 404 {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
}
