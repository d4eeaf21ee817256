package download_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/download"
)

// recorder notes the Authorization header of each request, by path.
type recorder struct {
	mu   sync.Mutex
	seen []string
}

func (r *recorder) wrap(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.seen = append(r.seen, req.URL.Path+" "+req.Header.Get("Authorization")+req.Header.Get("Referer"))
		r.mu.Unlock()
		next(w, req)
	})
}

// A token is sent to its own server, and to no other, also when a redirect leads
// away and back. Errors have neither the token nor the query of a signed URL.
func TestTokenStaysWithItsServer(t *testing.T) {
	b := content(50, 20)
	var home, foreign recorder
	var homeURL string
	elsewhere := httptest.NewServer(foreign.wrap(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/blob":
			honest(b)(w, r)
		case "/back":
			http.Redirect(w, r, homeURL+"/direct", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	defer elsewhere.Close()
	own := httptest.NewServer(home.wrap(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/direct" {
			honest(b)(w, r)
			return
		}
		http.Redirect(w, r, elsewhere.URL+r.URL.Path+"?signature=secret", http.StatusFound)
	}))
	defer own.Close()
	homeURL = own.URL
	u, err := url.Parse(own.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := client()
	c.Credentials = download.FirstOf(download.BearerToken(u, "hf_token"), func(*url.URL) string { return "" })
	for _, path := range []string{"/blob", "/back"} {
		if _, err := c.Fetch(t.Context(), source(own.URL+path, b), target(t)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if want := []string{"/blob Bearer hf_token", "/back Bearer hf_token", "/direct Bearer hf_token"}; !slices.Equal(home.seen, want) {
		t.Errorf("own server: %q", home.seen)
	}
	if want := []string{"/blob ", "/back "}; !slices.Equal(foreign.seen, want) {
		t.Errorf("other server: %q", foreign.seen)
	}
	_, err = c.Fetch(t.Context(), source(own.URL+"/gone", b), target(t))
	if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "hf_token") || !strings.Contains(err.Error(), "/gone: 404") {
		t.Errorf("%v", err)
	}
	elsewhere.Close()
	if _, err = c.Fetch(t.Context(), source(own.URL+"/blob", b), target(t)); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

// refusing fails each request, and notes its Authorization.
type refusing struct{ seen []string }

func (r *refusing) RoundTrip(req *http.Request) (*http.Response, error) {
	r.seen = append(r.seen, req.URL.Scheme+" "+req.Header.Get("Authorization"))
	return nil, io.ErrClosedPipe
}

func TestNoTokenWithoutEncryption(t *testing.T) {
	var transport refusing
	c := client()
	c.Attempts, c.Transport, c.Credentials = 1, &transport, func(*url.URL) string { return "Bearer x" }
	for _, address := range []string{"http://example.test/m", "https://example.test/m", "http://127.0.0.1/m", "http://127.0.evil.test/m", "http://[::1]/m"} {
		if _, _, err := c.Get(t.Context(), address, 10); err == nil {
			t.Error(address)
		}
	}
	if want := []string{"http ", "https Bearer x", "http Bearer x", "http ", "http Bearer x"}; !slices.Equal(transport.seen, want) {
		t.Errorf("%q", transport.seen)
	}
}

func TestRedirectFromTLSToPlain(t *testing.T) {
	b := content(10, 21)
	plain := serve(t, honest(b))
	s := httptest.NewTLSServer(http.RedirectHandler(plain, http.StatusFound))
	defer s.Close()
	c := client()
	c.Transport = s.Client().Transport
	if _, err := c.Fetch(t.Context(), source(s.URL+"/m", b), target(t)); err == nil || !strings.Contains(err.Error(), "not encrypted") {
		t.Errorf("%v", err)
	}
}

func TestGetLimitsTheAnswer(t *testing.T) {
	address := serve(t, honest(content(100, 22)))
	if body, _, err := client().Get(t.Context(), address, 100); err != nil || len(body) != 100 {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if _, _, err := client().Get(t.Context(), address, 99); err == nil {
		t.Error("an answer over the limit")
	}
}

func TestReadNetrc(t *testing.T) {
	name := filepath.Join(t.TempDir(), "netrc")
	t.Setenv("NETRC", name)
	ask := func(address string) string {
		t.Helper()
		credentials, err := download.ReadNetrc()
		u, perr := url.Parse(address)
		if err != nil || perr != nil {
			t.Fatal(err, perr)
		}
		return credentials(u)
	}
	if got := ask("https://h.test/"); got != "" {
		t.Errorf("without a file: %q", got)
	}
	text := "machine other.test login a password b\nmachine h.test\n\tlogin me account x\n\tpassword s3cret\ndefault login anonymous password y\n"
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"https://h.test/x": "Basic bWU6czNjcmV0", "https://H.test:8443/": "Basic bWU6czNjcmV0", "https://other.test/": "Basic YTpi",
		"https://x.h.test/": "", "https://unlisted.test/": "",
	} {
		if got := ask(address); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}
