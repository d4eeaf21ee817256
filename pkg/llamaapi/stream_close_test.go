package llamaapi_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// closing is a transport that reports when the body of a completion was closed.
type closing struct {
	http.RoundTripper

	closed chan struct{}
}

func (c closing) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := c.RoundTripper.RoundTrip(r)
	if err == nil && r.URL.Path == "/completion" { // and not /tokenize, which a split rune may cause
		res.Body = closingBody{res.Body, sync.OnceFunc(func() { close(c.closed) })}
	}
	return res, err
}

type closingBody struct {
	io.ReadCloser

	onClose func()
}

func (b closingBody) Close() error {
	defer b.onClose()
	return b.ReadCloser.Close()
}

// TestContextEndsUnreadStream cancels a request whose stream is no longer read. On failure,
// the test hangs.
func TestContextEndsUnreadStream(t *testing.T) {
	srv := httptest.NewServer(fakellama.New(fakellama.Script{NeverEnds: true, TokenDelay: time.Millisecond, ContextLen: 1 << 30}))
	defer srv.Close()
	closed := make(chan struct{})
	c := llamaapi.New(srv.URL, &http.Client{Transport: closing{srv.Client().Transport, closed}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := c.Completion(ctx, text("x"))
	if err != nil {
		t.Fatal(err)
	}
	if !s.Next() {
		t.Fatal(s.Err())
	}
	cancel()
	<-closed
	if s.Next() || !errors.Is(s.Err(), context.Canceled) {
		t.Errorf("after the end of the context: %v", s.Err())
	}
}
