package download_test

import (
	"compress/gzip"
	"errors"
	"net/http"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/download"
)

// Servers that break the rules, and the error of each.
func TestFetchRejectsLies(t *testing.T) {
	b := content(500, 5)
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		src   func(url string) download.Source // nil: everything is known
		want  error
	}{
		"longer than listed": {honest(append(content(500, 5), 1)), nil, download.ErrSize},
		"shorter":            {honest(b[:499]), nil, download.ErrSize},
		"other content":      {honest(content(500, 6)), nil, download.ErrDigest},
		"empty":              {honest(nil), unknown, nil},
		"other range": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 1-64/500")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(b[1:65])
		}, nil, download.ErrAnswer},
		"a later beginning": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 1-63/500")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(b[1:64])
		}, nil, download.ErrAnswer},
		"no range in a 206": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(b[:64])
		}, nil, download.ErrAnswer},
		"range and length differ": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-63/500")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(b[:32])
		}, nil, download.ErrAnswer},
		"416": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes */0")
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		}, nil, download.ErrChanged},
		"compressed": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(b)
			_ = z.Close()
		}, nil, download.ErrAnswer},
		"length unknown": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(b)
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write(b)
		}, unknown, download.ErrAnswer},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-63/500")
			w.WriteHeader(http.StatusPartialContent)
			for {
				if _, err := w.Write(b); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
			}
		}, nil, download.ErrAnswer},
		"redirects in a circle": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/again", http.StatusFound)
		}, nil, download.ErrRedirect},
		"redirect to a file": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}, nil, download.ErrRedirect},
		"missing": {func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			url := serve(t, c.serve)
			src := source(url, b)
			if c.src != nil {
				src = c.src(url)
			}
			dst := target(t)
			got, err := client().Fetch(t.Context(), src, dst)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("%+v, %v; want %v", got, err, c.want)
			}
			if errors.Is(err, download.ErrDigest) {
				checkFile(t, dst, nil)
			}
		})
	}
}
