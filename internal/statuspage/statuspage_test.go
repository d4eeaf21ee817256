package statuspage

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// TestFiles checks the type and the policy of each file.
func TestFiles(t *testing.T) {
	p := New()
	for path, kind := range map[string]string{
		"/status": "text/html", "/status/status.css": "text/css", "/status/status.js": "text/javascript",
		"/status/stream.js": "text/javascript", "/status/view.js": "text/javascript", "/status/plot.js": "text/javascript", "/status/icon.svg": "image/svg+xml",
	} {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		h := w.Result().Header
		if !p.Has(path) || w.Code != http.StatusOK || !strings.HasPrefix(h.Get("Content-Type"), kind) || w.Body.Len() == 0 {
			t.Errorf("%s: %d %s, %d bytes", path, w.Code, h.Get("Content-Type"), w.Body.Len())
		}
		if h.Get("Content-Security-Policy") != Policy || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", path, h)
		}
		again := httptest.NewRequest(http.MethodGet, path, nil)
		again.Header.Set("If-None-Match", h.Get("ETag"))
		w = httptest.NewRecorder()
		if p.ServeHTTP(w, again); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
			t.Errorf("%s: answered %d to the tag that it has sent", path, w.Code)
		}
	}
	for path, want := range map[string]int{"/status/": http.StatusNotFound, "/status/index.html": http.StatusNotFound, "/status/../statuspage.go": http.StatusNotFound} {
		w := httptest.NewRecorder()
		if p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil)); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
	w := httptest.NewRecorder()
	if p.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/status", nil)); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

// TestFilesNameNoOtherHost checks that no file refers to another host, has a script or
// style in its HTML, or sets HTML from a text.
func TestFilesNameNoOtherHost(t *testing.T) {
	p := New()
	for path, pattern := range map[string]string{"": `(?i)(https?:)?//[a-z0-9]`, "/status": `(?i)<style|<script>| on[a-z]+=| style=`, ".js": `innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|localStorage`} {
		bad := regexp.MustCompile(pattern)
		for name, f := range p.files {
			if !strings.Contains(name, path) {
				continue
			}
			text := strings.ReplaceAll(string(f.data), "http://www.w3.org/2000/svg", "")
			if found := bad.FindString(text); found != "" && !strings.HasPrefix(found, "// ") {
				t.Errorf("%s has %q", name, found)
			}
		}
	}
}

// TestSize keeps the page small.
func TestSize(t *testing.T) {
	if n := New().Size(); n < 1000 || n > 40<<10 {
		t.Errorf("the page has %d bytes", n)
	}
}

// BenchmarkNew measures what the page adds to the start of the service.
func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		New()
	}
}
