package webui

import (
	"archive/zip"
	"compress/gzip"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
)

// workerPath is where llama-server's own page has a service worker. A browser that has
// once opened llama-server under the address of this service still runs that worker,
// which shows the old page without asking. Our page has none.
const workerPath = "/sw.js"

// worker replaces that service worker by none.
const worker = `self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', async () => {
	for (const name of await caches.keys()) await caches.delete(name);
	await self.registration.unregister();
	for (const client of await self.clients.matchAll({ type: 'window' })) client.navigate(client.url);
});
`

// ServeHTTP answers GET and HEAD for the paths that Has reports, and 404 for others.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	SetSecurityHeaders(h, p.policy)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "the page is read with GET", http.StatusMethodNotAllowed)
		return
	}
	name := r.URL.Path
	if name == workerPath {
		h.Set("Content-Type", "text/javascript; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
		_, _ = io.WriteString(w, worker)
		return
	}
	if name == "/" {
		name = "/" + indexName
	}
	f := p.files[name]
	if f == nil {
		http.NotFound(w, r)
		return
	}
	h.Set("Content-Type", contentType(name))
	h.Set("Cache-Control", cacheControl(name))
	h.Set("Vary", "Accept-Encoding")
	coding := ""
	if f.Method == methodZstd {
		coding = contentCoding(r.Header)
	}
	tag := `"` + strings.TrimSuffix(f.Comment+"-"+coding, "-") + `"`
	h.Set("ETag", tag)
	if matchesTag(r.Header.Get("If-None-Match"), tag) {
		h.Del("Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if coding != "" {
		h.Set("Content-Encoding", coding)
	}
	switch coding {
	case codingZstd:
		h.Set("Content-Length", strconv.FormatUint(f.CompressedSize64, 10))
	case "":
		h.Set("Content-Length", strconv.FormatUint(f.UncompressedSize64, 10))
	}
	if r.Method != http.MethodHead {
		send(w, f, coding)
	}
}

// send sends the content of a file in a content coding.
func send(w io.Writer, f *zip.File, coding string) {
	if coding == codingZstd {
		raw, err := f.OpenRaw()
		if err != nil {
			panic(http.ErrAbortHandler) // the program is damaged, and the length is sent
		}
		_, _ = io.Copy(w, raw)
		return
	}
	content, err := f.Open()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer func() { _ = content.Close() }()
	if coding == codingGzip {
		z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer func() { _ = z.Close() }() // an error means that the client has gone
		w = z
	}
	_, _ = io.Copy(w, content) //nolint:gosec // the program's own file
}

// SetSecurityHeaders sets the headers of each answer that a browser shows: policy is
// the Content-Security-Policy. With the Referrer-Policy "no-referrer" a form would be
// sent with the origin "null" (https://fetch.spec.whatwg.org/#append-a-request-origin-header),
// and could not be told from that of another page.
func SetSecurityHeaders(h http.Header, policy string) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(self), payment=(), usb=()")
}

// cacheControl returns how long browsers may use a file without asking. The names of
// files below immutable contain the digest of their contents.
func cacheControl(name string) string {
	if strings.Contains(name, "/immutable/") {
		return "public, max-age=31536000, immutable"
	}
	return "no-cache"
}

// contentTypes are the media types of the page's files. The table of the package mime
// depends on the files of the machine.
var contentTypes = map[string]string{
	".css": "text/css; charset=utf-8", ".html": "text/html; charset=utf-8", ".ico": "image/x-icon", ".js": "text/javascript; charset=utf-8",
	".json": "application/json", ".md": "text/plain; charset=utf-8", ".mjs": "text/javascript; charset=utf-8", ".png": "image/png",
	".svg": "image/svg+xml", ".ttf": "font/ttf", ".txt": "text/plain; charset=utf-8", ".wasm": "application/wasm",
	".webmanifest": "application/manifest+json", ".webp": "image/webp", ".woff": "font/woff", ".woff2": "font/woff2",
}

// contentType returns the media type of a file.
func contentType(name string) string {
	if t, ok := contentTypes[strings.ToLower(path.Ext(name))]; ok {
		return t
	}
	return "application/octet-stream"
}

// The content codings in which files are sent (RFC 9110 8.4.1, RFC 8878).
const (
	codingZstd = "zstd"
	codingGzip = "gzip"
)

// contentCoding returns the content coding for a client: zstd, else gzip, else none.
func contentCoding(h http.Header) string {
	for _, coding := range []string{codingZstd, codingGzip} {
		if accepts(h, coding) {
			return coding
		}
	}
	return ""
}

// accepts reports whether the client accepts a content coding (RFC 9110 12.5.3).
func accepts(h http.Header, wanted string) bool {
	for _, list := range h.Values("Accept-Encoding") {
		for coding := range strings.SplitSeq(list, ",") {
			name, parameter, _ := strings.Cut(coding, ";")
			if strings.EqualFold(strings.TrimSpace(name), wanted) {
				quality, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(parameter)), "q=")
				value, err := strconv.ParseFloat(quality, 64)
				return !ok || err == nil && value > 0
			}
		}
	}
	return false
}

// matchesTag implements If-None-Match (RFC 9110 13.1.2).
func matchesTag(header, tag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		if candidate == tag || candidate == "*" {
			return true
		}
	}
	return false
}
