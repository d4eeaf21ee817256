package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// fakePage is a page of two files.
type fakePage struct{}

func (fakePage) Has(path string) bool { return path == "/" || path == "/app.js" }

func (fakePage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, "page "+r.URL.Path)
}

// signInServer is a service with a page and the keys "plain" and "limited".
type signInServer struct {
	*testing.T
	gateway *Gateway
	files   CredentialFiles
	keys    string // the key file
	url     string
	client  *http.Client
}

func newSignInServer(t *testing.T) *signInServer {
	t.Helper()
	sum := sha256.Sum256([]byte("limited-key"))
	s := &signInServer{T: t, keys: writeFile(t, "keys", "plain-key\n")}
	s.files = CredentialFiles{KeyFile: s.keys, Named: []Key{{Name: "limited", SHA256: hex.EncodeToString(sum[:]), Models: []string{"none"}}}}
	log := slog.New(slog.DiscardHandler)
	credentials, err := LoadCredentials(s.files, log)
	if err != nil {
		t.Fatal(err)
	}
	s.gateway = New(Options{Credentials: credentials, Log: log, Page: fakePage{}})
	s.gateway.SetModel(rocm.ModelStatus{Name: "model"}, newFakeBackend(t, fakellama.Script{}), 0)
	srv := httptest.NewServer(s.gateway)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	s.client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s
}

// do sends a request; header contains names and values alternately.
func (s *signInServer) do(method, path, body string, header ...string) response {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Add(header[i], header[i+1])
	}
	res, err := s.client.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.Fatal(err)
	}
	return response{res.StatusCode, res.Header, string(text)}
}

const formType = "application/x-www-form-urlencoded"

// signIn signs in and returns the answer and the value of Cookie.
func (s *signInServer) signIn(key, next string, header ...string) (response, string) {
	s.Helper()
	form := url.Values{"key": {key}, "next": {next}}.Encode()
	if len(header) == 0 {
		header = []string{"Origin", s.url}
	}
	res := s.do(http.MethodPost, signInPath, form, append([]string{"Content-Type", formType}, header...)...)
	c, _, _ := strings.Cut(res.header.Get("Set-Cookie"), ";")
	return res, c
}

func TestSignInGivesTheBrowserTheRightsOfTheKey(t *testing.T) {
	t.Parallel()
	s := newSignInServer(t)
	for _, tt := range []struct {
		key    string
		status int // of the list of models, of which the limited key may use none
	}{{"plain-key", http.StatusOK}, {"limited-key", http.StatusNotFound}} {
		res, cookie := s.signIn(tt.key, "/status?a=b")
		if res.status != http.StatusSeeOther || res.header.Get("Location") != "/status?a=b" || cookie == "" {
			t.Fatalf("%s: %d %v", tt.key, res.status, res.header)
		}
		if strings.Contains(fmt.Sprint(res.header), tt.key) {
			t.Errorf("%s: the answer contains the key: %v", tt.key, res.header)
		}
		list := s.do(http.MethodGet, "/v1/models", "", "Cookie", cookie, "Sec-Fetch-Site", "same-origin")
		if list.status != tt.status {
			t.Errorf("%s: %d %s", tt.key, list.status, list.body)
		}
		if start := s.do(http.MethodGet, "/", "", "Cookie", cookie, "Accept", "text/html"); start.body != "page /" {
			t.Errorf("%s: %d %s", tt.key, start.status, start.body)
		}
		if status := s.do(http.MethodGet, "/status", "", "Cookie", cookie, "Accept", "text/html"); status.status != http.StatusOK || !strings.Contains(status.body, "/status/status.js") {
			t.Errorf("%s: the page /status: %d %s", tt.key, status.status, status.body)
		}
		for name, header := range map[string][]string{
			"true": {"Cookie", cookie, "Sec-Fetch-Site", "same-origin"}, "false": {"Authorization", "Bearer " + tt.key},
		} {
			if data := s.do(http.MethodGet, "/status/data", "", header...); !strings.Contains(data.body, `"signed_in":`+name) {
				t.Errorf("%s: the data for %v: %d %s", tt.key, header, data.status, data.body)
			}
		}
	}
}

func TestSignInRejectsOtherPages(t *testing.T) {
	t.Parallel()
	s := newSignInServer(t)
	for name, header := range map[string][]string{
		"another site": {"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, "no origin": {"X-Nothing", ""}, "another port": {"Origin", "http://127.0.0.1:1"},
	} {
		if res, cookie := s.signIn("plain-key", "/", header...); res.status != http.StatusForbidden || cookie != "" {
			t.Errorf("%s: %d %v", name, res.status, res.header)
		}
	}
	if res := s.do(http.MethodPost, signInPath, `{"key":"plain-key"}`, "Origin", s.url, "Content-Type", "application/json"); res.status != http.StatusBadRequest {
		t.Errorf("JSON: %d", res.status)
	}
	if res := s.do(http.MethodPost, signInPath, "key="+strings.Repeat("x", maxSignIn), "Origin", s.url, "Content-Type", formType); res.status != http.StatusBadRequest {
		t.Errorf("a large form: %d", res.status)
	}
	if res := s.do(http.MethodDelete, signInPath, ""); res.status != http.StatusMethodNotAllowed {
		t.Errorf("DELETE: %d", res.status)
	}
}

// Wrong keys are limited for each address; a right one is not kept out for long.
func TestSignInLimitsWrongKeys(t *testing.T) {
	t.Parallel()
	s := newSignInServer(t)
	clock := time.Unix(1_000_000, 0)
	s.gateway.sessions.now = func() time.Time { return clock }
	for i := range signInBurst {
		res, cookie := s.signIn(fmt.Sprintf("wrong-%d", i), "/")
		if res.status != http.StatusUnauthorized || cookie != "" || !strings.Contains(res.body, "not accepted") {
			t.Fatalf("try %d: %d %s", i, res.status, res.body)
		}
	}
	res, cookie := s.signIn("plain-key", "/")
	if res.status != http.StatusTooManyRequests || res.header.Get("Retry-After") != "6" || cookie != "" {
		t.Errorf("%d %v", res.status, res.header)
	}
	clock = clock.Add(signInPause)
	if res, _ := s.signIn("plain-key", "/"); res.status != http.StatusSeeOther {
		t.Errorf("after the pause: %d %s", res.status, res.body)
	}
	if n := len(s.gateway.sessions.tries); n != 1 {
		t.Errorf("%d addresses are counted, want 1", n)
	}
}

// reload changes the keys, as SIGHUP does.
func (s *signInServer) reload(keys string, named []Key) {
	s.Helper()
	if err := os.WriteFile(s.keys, []byte(keys), 0o600); err != nil {
		s.Fatal(err)
	}
	files := s.files
	files.Named = named
	if err := s.gateway.credentials.Replace(files); err != nil {
		s.Fatal(err)
	}
}

// People get the sign-in page, programs the error of the API.
func TestUnknownVisitors(t *testing.T) {
	t.Parallel()
	s := newSignInServer(t)
	for name, tt := range map[string]struct {
		method, path string
		header       []string
		status       int
		location     string
	}{
		"a person":                    {"GET", "/", []string{"Accept", "text/html,*/*"}, 303, "/sign-in?next=%2F"},
		"a person at another page":    {"GET", "/activity?x=1", []string{"Accept", "text/html"}, 303, "/sign-in?next=%2Factivity%3Fx%3D1"},
		"a person at the status page": {"GET", "/status?x=1", []string{"Accept", "text/html"}, 303, "/sign-in?next=%2Fstatus%3Fx%3D1"},
		"a file of the status page":   {"GET", "/status/status.js", nil, 200, ""},
		"a file of the page":          {"GET", "/app.js", nil, 200, ""},
		"a program":                   {"GET", "/", []string{"Accept", "*/*"}, 401, ""},
		"a script of the page":        {"GET", "/props", []string{"Accept", "text/html", "Sec-Fetch-Mode", "cors"}, 401, ""},
		"a person with a wrong key":   {"GET", "/", []string{"Accept", "text/html", "Authorization", "Bearer wrong"}, 401, ""},
		"a program with the key":      {"GET", "/", []string{"Authorization", "Bearer plain-key"}, 200, ""},
		"a change":                    {"POST", "/v1/chat/completions", []string{"Accept", "text/html"}, 401, ""},
		"a cookie that is no session": {"GET", "/v1/models", []string{"Cookie", "gorocm=x; gorocm-1=y"}, 401, ""},
	} {
		res := s.do(tt.method, tt.path, "", tt.header...)
		if res.status != tt.status || res.header.Get("Location") != tt.location {
			t.Errorf("%s: %d %v", name, res.status, res.header)
		}
	}
}

// After signing in, nobody is sent to another service.
func TestLocalPath(t *testing.T) {
	t.Parallel()
	for next, want := range map[string]string{
		"/": "/", "/status": "/status", "/status?a=b": "/status?a=b", "/a/../b": "/a/../b",
		"": "/", "status": "/", "https://evil.example/": "/", "//evil.example": "/", `/\evil.example`: "/", "/%2fevil.example": "/",
		"javascript:alert(1)": "/", "/sign-in": "/", "/sign-out": "/", "/\r\nSet-Cookie: a=b": "/", "http:/x": "/", "///x": "/",
	} {
		if got := localPath(next); got != want {
			t.Errorf("%q: %q, want %q", next, got, want)
		}
	}
}

// The sign-in page shows what it gets as text, and has no script.
func TestSignInPageIsHarmless(t *testing.T) {
	t.Parallel()
	s := newSignInServer(t)
	res := s.do(http.MethodGet, signInPath+"?next="+url.QueryEscape(`/"><script>alert(1)</script>`), "")
	policy := res.header.Get("Content-Security-Policy")
	if res.status != http.StatusOK || strings.Contains(res.body, "<script") || !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") ||
		res.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v\n%s", res.status, res.header, res.body)
	}
	_, cookie := s.signIn("limited-key", "/")
	if res := s.do(http.MethodGet, signInPath, "", "Cookie", cookie); !strings.Contains(res.body, "limited") || !strings.Contains(res.body, `action="/sign-out"`) {
		t.Errorf("signed in: %s", res.body)
	}
}

// What llama-server runs on request, and what controls the requests of others, stays
// off; the page gets empty answers where it would show an error.
func TestPageHasNoToolsAndNoProxy(t *testing.T) {
	t.Parallel()
	s := newSignInServer(t)
	auth := []string{"Authorization", "Bearer plain-key"}
	for _, tt := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/tools", 200, "[]"},
		{"POST", "/tools", 200, `{"error":"this service runs no tools"}`},
		{"GET", "/cors-proxy?url=http://127.0.0.1/", 404, ""},
		{"POST", "/cors-proxy", 404, ""},
		{"POST", "/v1/streams/lookup", 200, "[]"},
		{"GET", "/v1/stream?conv_id=x", 404, ""},
		{"DELETE", "/v1/stream?conv_id=x", 200, `{"success":true}`},
		{"POST", "/v1/chat/completions/control", 404, ""},
		{"POST", "/props", 405, ""},
		{"POST", "/models/download", 404, ""},
	} {
		res := s.do(tt.method, tt.path, "{}", append(auth, "Content-Type", "application/json")...)
		if res.status != tt.status || tt.body != "" && res.body != tt.body {
			t.Errorf("%s %s: %d %s, want %d", tt.method, tt.path, res.status, res.body, tt.status)
		}
		if res := s.do(tt.method, tt.path, "{}"); res.status != http.StatusUnauthorized {
			t.Errorf("%s %s without a key: %d", tt.method, tt.path, res.status)
		}
	}
}

// Without a page there is no way to sign in, and the API is as it was.
func TestNoPage(t *testing.T) {
	t.Parallel()
	g := newGateway(t, newFakeBackend(t, fakellama.Script{}), "plain-key")
	g.noStatusPage = true
	url := serveGateway(t, g)
	for _, path := range []string{"/", signInPath, signOutPath, "/tools", "/status", "/status/status.js"} {
		if res := send(t, http.MethodGet, url+path, "", "Authorization", "Bearer plain-key", "Accept", "text/html"); res.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, res.status)
		}
	}
	if res := send(t, http.MethodGet, url+"/", "", "Accept", "text/html"); res.status != http.StatusUnauthorized {
		t.Errorf("without a key: %d", res.status)
	}
}

func TestMissingPageSaysWhy(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	credentials, err := LoadCredentials(CredentialFiles{}, log)
	if err != nil {
		t.Fatal(err)
	}
	url := serveGateway(t, New(Options{Credentials: credentials, Log: log, Page: MissingPage(io.ErrUnexpectedEOF)}))
	for accept, kind := range map[string]string{"text/html": "text/html; charset=utf-8", "*/*": "application/json; charset=utf-8"} {
		res := send(t, http.MethodGet, url+"/", "", "Accept", accept)
		if res.status != http.StatusNotFound || res.header.Get("Content-Type") != kind || !strings.Contains(res.body, io.ErrUnexpectedEOF.Error()) {
			t.Errorf("%s: %d %v %s", accept, res.status, res.header, res.body)
		}
	}
}
