package download_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// slowAnswer is an answer that comes byte by byte, after a pause each.
type slowAnswer struct {
	io.Reader
	pause time.Duration
}

func (a slowAnswer) Read(p []byte) (int, error) {
	time.Sleep(a.pause)
	return a.Reader.Read(p[:1])
}

func (slowAnswer) Close() error { return nil }

// A slow server is waited for, however long the whole takes, as long as bytes come.
func TestFetchFromASlowServer(t *testing.T) {
	b, dst := content(60, 14), target(t)
	synctest.Test(t, func(t *testing.T) {
		c := client()
		c.Attempts, c.IdleTimeout = 1, time.Minute // of the hour that it takes
		c.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			return &http.Response{
				StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: int64(len(b)), Request: r,
				Body: slowAnswer{bytes.NewReader(b), c.IdleTimeout - time.Second},
			}, nil
		})
		if got, err := c.Fetch(t.Context(), source("https://slow.example/m.gguf", b), dst); err != nil || got.SHA256 != digest(b) {
			t.Errorf("%+v, %v", got, err)
		}
	})
	checkFile(t, dst, b)
}

// roundTrip is a function as an http.RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A silent server is left after the idle time, and the context ends everything.
func TestFetchOfASilentServer(t *testing.T) {
	b := content(300, 12)
	release := make(chan struct{})
	defer close(release)
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-63/300")
		w.Header().Set("Content-Length", "64")
		w.WriteHeader(http.StatusPartialContent)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	c := client()
	c.IdleTimeout = 20 * time.Millisecond
	if _, err := c.Fetch(t.Context(), source(url, b), target(t)); err == nil || !strings.Contains(err.Error(), "sent nothing for 20ms") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	errStop := errors.New("stop")
	time.AfterFunc(10*time.Millisecond, func() { cancel(errStop) })
	if _, err := client().Fetch(ctx, source(url, b), target(t)); !errors.Is(err, errStop) {
		t.Errorf("%v", err)
	}
}
