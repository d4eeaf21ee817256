// Package statuspage has the files of the page /status, which shows cards, models and
// requests in a browser. The page gets its data from the service's own API: the files
// have none. It has no key either: the service signs a person in before.
//
// The page needs no other host. Its policy allows only scripts, styles and requests of
// its own origin.
package statuspage

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

//go:embed page
var files embed.FS

const (
	// Path is that of the page itself; those of its other files are below.
	Path = "/status"
	// Policy is the content security policy of the page.
	Policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

// file is a file of the page.
type file struct {
	data []byte
	kind string // media type
	etag string
}

// Page serves the files.
type Page struct {
	files map[string]file // by path
}

// New returns the page.
func New() *Page {
	p := &Page{files: map[string]file{}}
	kinds := map[string]string{
		".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
		".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
	}
	entries, err := fs.ReadDir(files, "page")
	if err != nil {
		panic("statuspage: " + err.Error()) // the files are in the program
	}
	for _, e := range entries {
		data, err := files.ReadFile("page/" + e.Name())
		if err != nil {
			panic("statuspage: " + err.Error())
		}
		sum := sha256.Sum256(data)
		url := Path + "/" + e.Name()
		if e.Name() == "index.html" {
			url = Path
		}
		p.files[url] = file{data: data, kind: kinds[path.Ext(e.Name())], etag: `"` + hex.EncodeToString(sum[:12]) + `"`}
	}
	return p
}

// Has reports whether the page has a file at the path of a URL.
func (p *Page) Has(urlPath string) bool {
	_, ok := p.files[urlPath]
	return ok
}

// Size returns the bytes of all files.
func (p *Page) Size() (n int) {
	for _, f := range p.files {
		n += len(f.data)
	}
	return n
}

// ServeHTTP implements http.Handler. It answers GET and HEAD.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, ok := p.files[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "the page is only read", http.StatusMethodNotAllowed)
		return
	}
	h.Set("Content-Security-Policy", Policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin") // with "no-referrer" the form to sign out would have no origin
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache") // a new version of the program has new files
	h.Set("ETag", f.etag)
	h.Set("Content-Type", f.kind)
	if strings.Contains(r.Header.Get("If-None-Match"), f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(f.data) // net/http sends no body for HEAD
}
