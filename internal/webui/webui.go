// Package webui serves llama.cpp's own web page, which `mage build` makes from the
// pinned source and which the command embeds.
//
// The page is static files that contain no secret: it uses the service's API as any
// other client does. The package knows neither models nor keys; internal/gateway
// decides who may use the API, and shows a page for signing in.
//
// The files stay compressed by zstd in the program. Browsers get them as they are where
// they accept zstd, which they do on this machine and over TLS; else the files are
// compressed by gzip while they are sent. Nothing is unpacked at the start.
package webui

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// ErrNotEmbedded means that this program was built without the page.
var ErrNotEmbedded = errors.New("this go-rocm was built without the web page; install the Debian package or the container image, or build with `go run mage.go build`")

const indexName = "index.html"

// Page is llama.cpp's web page. It implements http.Handler.
type Page struct {
	files  map[string]*zip.File
	policy string // Content-Security-Policy
}

// Embedded returns the page in this program. The error is ErrNotEmbedded if there is none.
func Embedded() (*Page, error) {
	f, err := embedded.Open(path.Join("payload", PackName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotEmbedded
	}
	if err != nil {
		return nil, fmt.Errorf("the embedded web page: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("the embedded web page: %w", err)
	}
	r, ok := f.(io.ReaderAt)
	if !ok {
		return nil, errors.New("the embedded web page cannot be read at an offset")
	}
	return Open(r, info.Size())
}

// Open returns the page that Pack has written, of size bytes. It reads the list of
// files and index.html; r must remain open.
func Open(r io.ReaderAt, size int64) (*Page, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("the web page: %w; build the program again", err)
	}
	z.RegisterDecompressor(methodZstd, zstd.ZipDecompressor(zstd.WithDecoderMaxWindow(maxWindow)))
	p := &Page{files: map[string]*zip.File{}}
	for _, f := range z.File {
		p.files["/"+f.Name] = f
	}
	index, err := p.read("/" + indexName)
	if err != nil {
		return nil, fmt.Errorf("the web page: %s: %w; build the program again", indexName, err)
	}
	p.policy = contentPolicy(scriptHashes(index))
	return p, nil
}

// Has reports whether path is a path of the page, such as "/" or "/favicon.svg".
func (p *Page) Has(path string) bool {
	return path == "/" || path == workerPath || p.files[path] != nil
}

// Paths returns the paths of the page's files, sorted.
func (p *Page) Paths() []string {
	var all []string
	for name := range p.files {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// read returns the content of a file.
func (p *Page) read(path string) ([]byte, error) {
	f := p.files[path]
	if f == nil {
		return nil, fs.ErrNotExist
	}
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

// inlineScript matches a script element; its first group are the attributes, the second
// the content.
var inlineScript = regexp.MustCompile(`(?is)<script\b([^>]*)>(.*?)</script\s*>`)

// scriptHashes returns the sources of a Content-Security-Policy for the inline scripts
// of a page (https://www.w3.org/TR/CSP3/#grammardef-hash-source).
func scriptHashes(html []byte) []string {
	var hashes []string
	for _, m := range inlineScript.FindAllSubmatch(html, -1) {
		if len(m[2]) == 0 {
			continue // a file
		}
		hashes = append(hashes, hashSource(m[2]))
	}
	return hashes
}

// contentPolicy returns the Content-Security-Policy of the page. Scripts are the page's
// own; connections go to this service alone, so that neither an answer of a model nor a
// plugin of the page can send anything elsewhere. Styles may be inline, since Svelte and
// Mermaid set them on elements; they cannot load anything from elsewhere either.
func contentPolicy(scripts []string) string {
	return strings.Join([]string{
		"default-src 'none'",
		"script-src " + strings.Join(append([]string{"'self'"}, scripts...), " "),
		"style-src 'self' 'unsafe-inline'",
		"img-src 'self' data: blob:",
		"font-src 'self' data:",
		"media-src 'self' data: blob:",
		"connect-src 'self' data: blob:",
		"worker-src 'self' blob:",
		"frame-src 'self' blob:",
		"manifest-src 'self'",
		"form-action 'self'",
		"base-uri 'none'",
		"object-src 'none'",
		"frame-ancestors 'none'",
	}, "; ")
}

// inlineStyle matches a style element; its first group is the content.
var inlineStyle = regexp.MustCompile(`(?is)<style\b[^>]*>(.*?)</style\s*>`)

// StyleHashes returns the sources of a Content-Security-Policy for the style elements
// of a page.
func StyleHashes(html []byte) []string {
	var hashes []string
	for _, m := range inlineStyle.FindAllSubmatch(html, -1) {
		hashes = append(hashes, hashSource(m[1]))
	}
	return hashes
}

// hashSource returns the source of a Content-Security-Policy for an element's content.
func hashSource(content []byte) string {
	sum := sha256.Sum256(content)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
