package webui

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// indexText has an inline script, one in a file, and a style.
const indexText = "<!doctype html><script>start()</script><script src=\"./_app/immutable/bundle.abc.js\"></script><style>p{}</style>"

// writeFiles writes a small page and returns its directory.
func writeFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"index.html": indexText, "_app/immutable/bundle.abc.js": strings.Repeat("let x = 1;\n", 1000), "icon.png": "not compressed again", "favicon.svg": "<svg/>",
	} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func pack(t *testing.T, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Pack(&b, dir, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func newPage(t *testing.T) *Page {
	t.Helper()
	raw := pack(t, writeFiles(t))
	p, err := Open(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func get(t *testing.T, h http.Handler, method, path string, header ...string) *http.Response {
	t.Helper()
	req := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Result()
}

func body(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPackIsReproducible(t *testing.T) {
	t.Parallel()
	if !bytes.Equal(pack(t, writeFiles(t)), pack(t, writeFiles(t))) {
		t.Error("two packs of the same files differ")
	}
}

func TestPackNeedsAnIndex(t *testing.T) {
	t.Parallel()
	if err := Pack(io.Discard, t.TempDir(), time.Unix(1, 0)); err == nil || !strings.Contains(err.Error(), "index.html") {
		t.Errorf("an empty directory: %v", err)
	}
	dir := writeFiles(t)
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := Pack(io.Discard, dir, time.Unix(1, 0)); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("a link: %v", err)
	}
}

func TestServesFilesWithTheirTypes(t *testing.T) {
	t.Parallel()
	p := newPage(t)
	for _, tt := range []struct {
		path, kind, cache string
	}{
		{"/", "text/html; charset=utf-8", "no-cache"},
		{"/index.html", "text/html; charset=utf-8", "no-cache"},
		{"/_app/immutable/bundle.abc.js", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"},
		{"/icon.png", "image/png", "no-cache"},
		{"/favicon.svg", "image/svg+xml", "no-cache"},
	} {
		res := get(t, p, http.MethodGet, tt.path) //nolint:bodyclose // a recorder's
		if !p.Has(tt.path) || res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != tt.kind || res.Header.Get("Cache-Control") != tt.cache {
			t.Errorf("%s: %s %v", tt.path, res.Status, res.Header)
		}
		head := get(t, p, http.MethodHead, tt.path) //nolint:bodyclose // a recorder's
		if text := body(t, res); head.Header.Get("Content-Length") != res.Header.Get("Content-Length") || body(t, head) != "" || res.ContentLength != int64(len(text)) {
			t.Errorf("%s: HEAD %v, GET %v with %d bytes", tt.path, head.Header, res.Header, len(text))
		}
	}
	for _, path := range []string{"/none", "/_app", "/../index.html", "/payload/page.zip"} {
		if res := get(t, p, http.MethodGet, "http://x"+path); p.Has(path) || res.StatusCode != http.StatusNotFound { //nolint:bodyclose // a recorder's
			t.Errorf("%s: %s", path, res.Status)
		}
	}
	if res := get(t, p, http.MethodPost, "/"); res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "GET, HEAD" { //nolint:bodyclose // a recorder's
		t.Errorf("POST: %s %v", res.Status, res.Header)
	}
}

// decoders decompress what a browser gets, by content coding.
var decoders = map[string]func(io.Reader) (io.Reader, error){
	"":     func(r io.Reader) (io.Reader, error) { return r, nil },
	"gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
	"zstd": func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r, zstd.WithDecoderMaxWindow(8<<20)) },
}

// The bytes that a browser decompresses are the file.
func TestServesCompressedFiles(t *testing.T) {
	t.Parallel()
	p := newPage(t)
	const path = "/_app/immutable/bundle.abc.js"
	want := body(t, get(t, p, http.MethodGet, path)) //nolint:bodyclose // a recorder's
	tags := map[string]string{}
	for accepted, coding := range map[string]string{
		"gzip": "gzip", "br, GZIP;q=0.5": "gzip", "gzip;q=0": "", "br": "", "gzip;q=x": "", "": "", "*": "",
		"gzip, deflate, br, zstd": "zstd", "zstd": "zstd", "zstd;q=0, gzip": "gzip",
	} {
		res := get(t, p, http.MethodGet, path, "Accept-Encoding", accepted) //nolint:bodyclose // a recorder's
		if got := res.Header.Get("Content-Encoding"); got != coding || res.Header.Get("Vary") != "Accept-Encoding" {
			t.Fatalf("%q: %v, want %q", accepted, res.Header, coding)
		}
		raw := body(t, res)
		if res.ContentLength >= 0 && res.ContentLength != int64(len(raw)) || coding != "" && len(raw) >= len(want) {
			t.Errorf("%q: %d bytes, Content-Length %d, uncompressed %d", accepted, len(raw), res.ContentLength, len(want))
		}
		z, err := decoders[coding](strings.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(z); err != nil || string(text) != want {
			t.Errorf("%q: %d bytes, %v", accepted, len(text), err)
		}
		tags[res.Header.Get("ETag")] = coding
	}
	if len(tags) != len(decoders) {
		t.Errorf("the forms of a file have the tags %v", tags)
	}
	if res := get(t, p, http.MethodGet, "/icon.png", "Accept-Encoding", "gzip, zstd"); res.Header.Get("Content-Encoding") != "" { //nolint:bodyclose // a recorder's
		t.Error("an image is compressed again")
	}
}

func TestAnswersNotModified(t *testing.T) {
	t.Parallel()
	p := newPage(t)
	tag := get(t, p, http.MethodGet, "/").Header.Get("ETag") //nolint:bodyclose // a recorder's
	for header, want := range map[string]int{tag: 304, "W/" + tag: 304, `"x", ` + tag: 304, "*": 304, `"x"`: 200, "": 200} {
		res := get(t, p, http.MethodGet, "/", "If-None-Match", header) //nolint:bodyclose // a recorder's
		if res.StatusCode != want || res.Header.Get("ETag") != tag || res.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("%q: %s", header, res.Status)
		}
	}
}

// The policy allows the page's own scripts alone, inline ones by their digests.
func TestContentSecurityPolicy(t *testing.T) {
	t.Parallel()
	h := get(t, newPage(t), http.MethodGet, "/").Header //nolint:bodyclose // a recorder's
	policy := map[string]string{}
	for directive := range strings.SplitSeq(h.Get("Content-Security-Policy"), "; ") {
		name, sources, _ := strings.Cut(directive, " ")
		policy[name] = sources
	}
	// printf 'start()' | openssl dgst -sha256 -binary | base64
	if want := "'self' 'sha256-DIm7WJS6ZKDYe5qFLPy+h4JFI9Bol5QmYC57mt3Fb00='"; policy["script-src"] != want {
		t.Errorf("script-src %s, want %s", policy["script-src"], want)
	}
	for name, want := range map[string]string{
		"default-src": "'none'", "frame-ancestors": "'none'", "base-uri": "'none'", "object-src": "'none'", "connect-src": "'self' data: blob:", "form-action": "'self'",
	} {
		if policy[name] != want {
			t.Errorf("%s %s, want %s", name, policy[name], want)
		}
	}
	for _, sources := range policy {
		if strings.Contains(sources, "http") || strings.Contains(sources, "*") || strings.Contains(sources, "unsafe-eval") {
			t.Errorf("the policy lets the page load from elsewhere, or run text: %s", sources)
		}
	}
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
	} {
		if h.Get(name) != want {
			t.Errorf("%s: %q", name, h.Get(name))
		}
	}
}

// llama-server's own page may have left a service worker in the browser.
func TestReplacesTheServiceWorker(t *testing.T) {
	t.Parallel()
	p := newPage(t)
	res := get(t, p, http.MethodGet, "/sw.js") //nolint:bodyclose // a recorder's
	if text := body(t, res); !p.Has("/sw.js") || !strings.Contains(text, "registration.unregister()") || strings.Contains(text, "fetch") {
		t.Errorf("%s: %s", res.Status, text)
	}
}

func TestOpenRejectsDamage(t *testing.T) {
	t.Parallel()
	raw := pack(t, writeFiles(t))
	for name, b := range map[string][]byte{"cut": raw[:len(raw)/2], "empty": nil, "text": []byte("no zip")} {
		if _, err := Open(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), "build the program again") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// BenchmarkOpen measures what the page adds to the start of serve: all of it is done
// by Open. The page is as large as llama.cpp's.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	for i := range 40 {
		if err := os.WriteFile(filepath.Join(dir, string(rune('a'+i%26))+strings.Repeat("x", i)+".png"), bytes.Repeat([]byte{byte(i)}, 30_000), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, indexName), []byte(strings.Repeat(" ", 20_000)+indexText), 0o600); err != nil {
		b.Fatal(err)
	}
	var packed bytes.Buffer
	if err := Pack(&packed, dir, time.Unix(1, 0)); err != nil {
		b.Fatal(err)
	}
	raw := packed.Bytes()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Open(bytes.NewReader(raw), int64(len(raw))); err != nil {
			b.Fatal(err)
		}
	}
}
