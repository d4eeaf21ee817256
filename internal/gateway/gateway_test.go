package gateway

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// testBackend is a Backend in this process.
type testBackend struct {
	srv   *httptest.Server
	state supervise.State
}

func (b *testBackend) BaseURL() string          { return b.srv.URL }
func (b *testBackend) HTTPClient() *http.Client { return b.srv.Client() }
func (b *testBackend) State() supervise.State   { return b.state }

// newBackend returns a ready backend that h answers for.
func newBackend(t *testing.T, h http.Handler) *testBackend {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return &testBackend{srv: srv, state: supervise.Ready}
}

// newFakeBackend returns a backend that is a fakellama.
func newFakeBackend(t *testing.T, script fakellama.Script) *testBackend {
	t.Helper()
	fake := fakellama.New(script)
	b := newBackend(t, fake)
	t.Cleanup(fake.Close) // runs first: it releases requests that hang
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
	g := New(credentials, log)
	if b != nil {
		g.SetBackend(b)
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

// response is what a client got.
type response struct {
	status int
	header http.Header
	body   string
}

// send sends a request; header holds names and values in turn.
func send(t *testing.T, method, url, body string, header ...string) response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Add(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{res.StatusCode, res.Header, string(raw)}
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
		"rebound name":  {[]string{"Host", "evil.example"}, 403},
		"any key":       {[]string{"Authorization", "Bearer whatever"}, 200},
	} {
		if got := send(t, "GET", url+"/v1/models", "", tt.header...); got.status != tt.status {
			t.Errorf("%s: %d, want %d: %s", name, got.status, tt.status, got.body)
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
	g.SetBackend(newFakeBackend(t, fakellama.Script{}))
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

// The backend's client authenticates itself; the client's credentials stay here.
func TestForwardsNoCredentials(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	b := newBackend(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
	url := serveGateway(t, newGateway(t, b, "secret"))
	send(t, "GET", url+"/v1/models", "", "Authorization", "Bearer secret", "X-Api-Key", "secret", "Cookie", "a=secret", "Origin", "http://secret.example")
	for name, values := range <-got {
		if strings.Contains(strings.Join(values, " "), "secret") {
			t.Errorf("%s: %q was forwarded", name, values)
		}
	}
}
