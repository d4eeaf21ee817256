package gateway

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// The cookie is unreadable for scripts, for this host only, and ends with the browser.
func TestSessionCookieAttributes(t *testing.T) {
	t.Parallel()
	s := newSignInServer(t)
	res, _ := s.signIn("plain-key", "/")
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	value := res.header.Get("Set-Cookie")
	name, attributes, _ := strings.Cut(value, "; ")
	if !strings.HasPrefix(name, "gorocm-"+u.Port()+"=") || attributes != "Path=/; HttpOnly; SameSite=Strict" {
		t.Errorf("Set-Cookie: %s", value)
	}
	encrypted := httptest.NewRequest(http.MethodGet, "https://box.example/", nil)
	if c := sessionCookie(encrypted, "x").String(); c != "__Host-gorocm=x; Path=/; HttpOnly; Secure; SameSite=Strict" {
		t.Errorf("with TLS: %s", c)
	}
}

// Requests with the cookie count only if they come from the service's own page.
func TestSessionRejectsOtherPages(t *testing.T) {
	t.Parallel()
	s := newSignInServer(t)
	_, cookie := s.signIn("plain-key", "/")
	chat := `{"messages":[{"role":"user","content":"Hello"}]}`
	host := strings.TrimPrefix(s.url, "http://")
	_, port, _ := strings.Cut(host, ":")
	for name, tt := range map[string]struct {
		method string
		header []string
		want   int
	}{
		"own page":                            {"POST", []string{"Origin", s.url, "Sec-Fetch-Site", "same-origin"}, 200},
		"own page without fetch metadata":     {"POST", []string{"Origin", s.url}, 200},
		"own page behind a proxy with TLS":    {"POST", []string{"Origin", "https://" + host}, 200},
		"a change that names no origin":       {"POST", nil, 401},
		"a page of another site":              {"POST", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, 401},
		"a page of another port":              {"POST", []string{"Origin", "http://127.0.0.1:1", "Sec-Fetch-Site", "same-site"}, 401},
		"another port, no fetch metadata":     {"POST", []string{"Origin", "http://127.0.0.1:1"}, 401},
		"an opaque origin":                    {"POST", []string{"Origin", "null"}, 401},
		"a lie about the origin":              {"POST", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "same-origin"}, 401},
		"another name for this host":          {"POST", []string{"Origin", "http://rebound.example:" + port}, 401},
		"reading":                             {"GET", nil, 200},
		"reading for the own page":            {"GET", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		"a person opens the address":          {"GET", []string{"Sec-Fetch-Site", "none"}, 200},
		"reading for another site":            {"GET", []string{"Sec-Fetch-Site", "cross-site"}, 401},
		"reading for another port":            {"GET", []string{"Sec-Fetch-Site", "same-site"}, 401},
		"reading for another origin":          {"GET", []string{"Origin", "https://evil.example"}, 401},
		"a person opens an address, changing": {"POST", []string{"Sec-Fetch-Site", "none"}, 401},
	} {
		path, body := "/v1/models", ""
		if tt.method == http.MethodPost {
			path, body = "/v1/chat/completions", chat
		}
		res := s.do(tt.method, path, body, append(tt.header, "Cookie", cookie, "Content-Type", "application/json")...)
		if res.status != tt.want {
			t.Errorf("%s: %d %s, want %d", name, res.status, res.body, tt.want)
		}
		if res.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: other pages may read answers to requests with the cookie", name)
		}
	}
}

// A page whose host name was pointed at this machine sends that name as Host, and has
// no cookie of the service. Without keys it is rejected.
func TestDNSRebinding(t *testing.T) {
	t.Parallel()
	s := newSignInServer(t)
	res, _ := s.signIn("plain-key", "/", "Origin", "http://rebound.example", "Host", "rebound.example")
	if res.status != http.StatusSeeOther {
		t.Fatalf("the key itself is enough under any name: %d", res.status)
	}
	log := slog.New(slog.DiscardHandler)
	credentials, err := LoadCredentials(CredentialFiles{}, log)
	if err != nil {
		t.Fatal(err)
	}
	open := &signInServer{T: t, client: s.client, url: serveGateway(t, New(Options{Credentials: credentials, Log: log, Page: fakePage{}}))}
	for _, path := range []string{"/", "/app.js", signInPath} {
		if res := open.do(http.MethodGet, path, "", "Host", "rebound.example", "Accept", "text/html"); res.status != http.StatusForbidden {
			t.Errorf("%s under another name: %d %s", path, res.status, res.body)
		}
		if res := open.do(http.MethodGet, path, "", "Accept", "text/html"); path != signInPath && res.body != "page "+path {
			t.Errorf("%s: %d %s", path, res.status, res.body)
		}
	}
	if res := open.do(http.MethodGet, signInPath+"?next=/status", ""); res.status != http.StatusSeeOther || res.header.Get("Location") != "/status" {
		t.Errorf("sign-in without keys: %d %v", res.status, res.header)
	}
}

func TestSessionEnds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end  func(s *signInServer, clock *time.Time, cookie string)
		want int
	}{
		"used until now": {func(_ *signInServer, clock *time.Time, _ string) { *clock = clock.Add(sessionIdle) }, 200},
		"unused":         {func(_ *signInServer, clock *time.Time, _ string) { *clock = clock.Add(sessionIdle + 1) }, 401},
		"too old": {func(s *signInServer, clock *time.Time, cookie string) {
			for range sessionAge/sessionIdle + 1 {
				*clock = clock.Add(sessionIdle)
				s.do(http.MethodGet, "/v1/models", "", "Cookie", cookie)
			}
		}, 401},
		"signed out": {func(s *signInServer, _ *time.Time, cookie string) {
			if res := s.do(http.MethodPost, signOutPath, "", "Cookie", cookie, "Origin", s.url); res.status != http.StatusSeeOther || !strings.Contains(res.header.Get("Set-Cookie"), "Max-Age=0") {
				s.Errorf("sign-out: %d %v", res.status, res.header)
			}
		}, 401},
		"another page signs out": {func(s *signInServer, _ *time.Time, cookie string) {
			if res := s.do(http.MethodPost, signOutPath, "", "Cookie", cookie, "Origin", "https://evil.example"); res.status != http.StatusForbidden {
				s.Errorf("sign-out by another page: %d", res.status)
			}
		}, 200},
		"its key is removed": {func(s *signInServer, _ *time.Time, _ string) { s.reload("other-key\n", s.files.Named) }, 401},
		"its key remains":    {func(s *signInServer, _ *time.Time, _ string) { s.reload("other-key\nplain-key\n", nil) }, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSignInServer(t)
			clock := time.Unix(1_000_000, 0)
			s.gateway.sessions.now = func() time.Time { return clock }
			_, cookie := s.signIn("plain-key", "/")
			tt.end(s, &clock, cookie)
			if res := s.do(http.MethodGet, "/v1/models", "", "Cookie", cookie); res.status != tt.want {
				t.Errorf("%d %s, want %d", res.status, res.body, tt.want)
			}
		})
	}
}

func TestSessionsAreLimited(t *testing.T) {
	t.Parallel()
	s := newSessions()
	clock := time.Unix(1_000_000, 0)
	s.now = func() time.Time { clock = clock.Add(time.Millisecond); return clock }
	c, err := CredentialFiles{Key: "plain"}.load(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	other := s.create("other")
	first, second := s.create("plain"), s.create("plain")
	if _, ok := s.find(first, c); !ok { // now the second was used the longest time ago
		t.Fatal("the first session does not exist")
	}
	for range maxSessionsPerKey - 1 {
		s.create("plain")
	}
	_, hasFirst := s.find(first, c)
	_, hasSecond := s.find(second, c)
	if len(s.byKey) != maxSessionsPerKey+1 || !hasFirst || hasSecond || !s.has(other) {
		t.Errorf("%d sessions, first %t, second %t, of another key %t", len(s.byKey), hasFirst, hasSecond, s.has(other))
	}
	for i := range maxSessions {
		s.create(fmt.Sprint(i))
	}
	if len(s.byKey) != maxSessions || s.has(other) {
		t.Errorf("%d sessions in all, the oldest %t", len(s.byKey), s.has(other))
	}
	if _, ok := s.find("", c); ok {
		t.Error("an empty token is a session")
	}
}

// Whoever has any number of addresses tries no more keys than the table allows: those
// that are not in the table count together.
func TestWrongKeysOfManyAddresses(t *testing.T) {
	t.Parallel()
	s := newSessions()
	now := time.Unix(1_000_000, 0)
	s.now = func() time.Time { return now }
	for i := range maxAddresses {
		s.failed(fmt.Sprint("address ", i))
	}
	tries := 0
	for i := range 10 * signInBurst {
		address := fmt.Sprint("another ", i)
		if s.mayTry(address) > 0 {
			break
		}
		s.failed(address)
		tries++
	}
	if tries != signInBurst || len(s.tries) > maxAddresses+1 {
		t.Errorf("%d tries from new addresses, %d addresses are counted", tries, len(s.tries))
	}
	for tries = 0; tries < 10*signInBurst && s.mayTry("address 1") == 0; tries++ {
		s.failed("address 1")
	}
	if tries != signInBurst-1 { // the first one was counted above
		t.Errorf("%d tries from an address in the table", tries)
	}
}
