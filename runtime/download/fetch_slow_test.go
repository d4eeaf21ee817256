package download_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A slow server is waited for, however long the whole takes, as long as bytes come.
func TestFetchFromASlowServer(t *testing.T) {
	b := content(60, 14)
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		for i := range b {
			_, _ = w.Write(b[i : i+1])
			_ = http.NewResponseController(w).Flush()
			time.Sleep(25 * time.Millisecond)
		}
	}))
	c := client()
	c.Attempts, c.IdleTimeout = 1, time.Second // of 1.5 s that it takes
	dst := target(t)
	if got, err := c.Fetch(t.Context(), source(url, b), dst); err != nil || got.SHA256 != digest(b) {
		t.Errorf("%+v, %v", got, err)
	}
	checkFile(t, dst, b)
}

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
