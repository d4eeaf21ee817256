package download_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
)

// Check sees the file from its beginning, as much as it asks for, and its error ends
// the download before the rest comes.
func TestFetchChecksTheBeginning(t *testing.T) {
	b := content(64*100, 10)
	errWrong := errors.New("wrong kind of file")
	for _, ranges := range []bool{true, false} {
		var served, budget atomic.Int64
		budget.Store(1 << 30)
		url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !ranges {
				r.Header.Del("Range")
			}
			honest(b)(&countingWriter{w, &served, &budget}, r)
		}))
		src := source(url, b)
		var needed int64 = 200
		src.Check = func(r io.ReaderAt, size int64) error {
			got := make([]byte, needed)
			if _, err := r.ReadAt(got, 0); err != nil {
				return fmt.Errorf("wrapped: %w", err)
			}
			if size != int64(len(b)) || !bytes.Equal(got, b[:needed]) {
				t.Errorf("Check got other bytes of %d", size)
			}
			return errWrong
		}
		c := client()
		c.Transport = &http.Transport{DisableKeepAlives: true, ReadBufferSize: 64}
		if _, err := c.Fetch(t.Context(), src, target(t)); !errors.Is(err, errWrong) {
			t.Errorf("ranges %v: %v", ranges, err)
		}
		if ranges && served.Load() != 256 {
			t.Errorf("%d bytes were sent before the decision, want 256", served.Load())
		}
		src.Check = func(r io.ReaderAt, _ int64) error {
			_, err := r.ReadAt(make([]byte, needed), 0)
			return err
		}
		needed = int64(len(b))
		if got, err := c.Fetch(t.Context(), src, target(t)); err != nil || got.SHA256 != digest(b) {
			t.Errorf("ranges %v: %+v, %v", ranges, got, err)
		}
	}
}

func TestFetchHeader(t *testing.T) {
	b := content(9<<20, 13)
	urls := []string{serve(t, honest(b)), serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range") // a server without ranges, but with tags
		honest(b)(w, r)
	}))}
	for i, n := range []int{10, 3 << 20, 10, 3 << 20} {
		url := urls[i/2]
		f := target(t).File
		src := unknown(url)
		src.Check = func(r io.ReaderAt, _ int64) error {
			_, err := r.ReadAt(make([]byte, n), 0)
			return err
		}
		size, err := client().FetchHeader(t.Context(), src, f)
		if err != nil || size != int64(len(b)) {
			t.Fatalf("%d, %v", size, err)
		}
		raw, err := os.ReadFile(f.Name())
		if err != nil || len(raw) != len(b) || !bytes.Equal(raw[:n], b[:n]) || !bytes.Equal(raw[8<<20:], make([]byte, 1<<20)) {
			t.Errorf("header of %d: %d bytes, %v", n, len(raw), err)
		}
	}
}
