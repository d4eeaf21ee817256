package llamaapi

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// endless returns a client of a server that streams tokens until its client disconnects.
func endless(t *testing.T, left *atomic.Int32) *Client {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer left.Add(1)
		for n := 1; r.Context().Err() == nil; n++ {
			if _, err := io.WriteString(w, ev(n, 5, "a")); err != nil {
				return
			}
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	return New(srv.URL, srv.Client())
}

func TestStreamClosedEarly(t *testing.T) {
	t.Run("break", func(t *testing.T) {
		var left atomic.Int32
		s, err := endless(t, &left).Completion(t.Context(), request())
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for range s.All() {
			if n++; n == 10 {
				break
			}
		}
		if s.Err() != nil {
			t.Errorf("leaving the loop is no error: %v", s.Err())
		}
		poll.Until(t, "the end of the connection", func() bool { return left.Load() == 1 })
		if s.Next() || !errors.Is(s.Err(), ErrClosed) {
			t.Errorf("after the break: %v", s.Err())
		}
	})
	t.Run("cancel", func(t *testing.T) {
		var left atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s, err := endless(t, &left).Completion(ctx, request())
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for range s.All() {
			if n++; n == 10 {
				cancel()
			}
			if n > 11 {
				t.Fatal("tokens come after the context ended")
			}
		}
		if !errors.Is(s.Err(), context.Canceled) {
			t.Errorf("err = %v", s.Err())
		}
		poll.Until(t, "the end of the connection", func() bool { return left.Load() == 1 })
	})
	t.Run("close by another goroutine", func(t *testing.T) {
		var left atomic.Int32
		s, err := endless(t, &left).Completion(t.Context(), request())
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() {
			<-read
			closeQuietly(s)
			closeQuietly(s)
		}()
		for n := 1; s.Next(); n++ {
			if n == 10 {
				close(read)
			}
		}
		if !errors.Is(s.Err(), ErrClosed) {
			t.Errorf("err = %v", s.Err())
		}
	})
}

// TestStreamReusesConnection checks that after a stream was read to its end, the next
// request uses its connection.
func TestStreamReusesConnection(t *testing.T) {
	var conns atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, ev(1, 5, "a")+fin(1, "limit"))
	}))
	srv.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	c := New(srv.URL, srv.Client())
	for range 5 {
		if _, s := drain(t, c, request()); s.Err() != nil {
			t.Fatal(s.Err())
		}
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections for 5 streams in turn", conns.Load())
	}
}
