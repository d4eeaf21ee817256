package gateway

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// One client cannot take all streams from the others, and gets its own back.
func TestWatchersAreShared(t *testing.T) {
	var w watchers
	for range maxWatchersPerClient {
		if !w.add("a") {
			t.Fatal("rejected below the limit")
		}
	}
	if w.add("a") || !w.add("b") {
		t.Error("the limit of one client is that of all, or there is none")
	}
	w.remove("a")
	if !w.add("a") {
		t.Error("rejected after one of its streams has ended")
	}
	for i := w.count; i < maxWatchers; i++ {
		w.add(string(rune('A' + i)))
	}
	if w.add("c") {
		t.Error("accepted beyond the limit of all")
	}
}

// Streams end when their key is gone or has other limits, and go on when it is not.
func TestStreamsEndWithTheirKey(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(k *Key)
		ends   bool
	}{
		"the key is gone":      {func(k *Key) { k.SHA256 = strings.Repeat("0", 64) }, true},
		"the key has limits":   {func(k *Key) { k.Models = []string{"b"} }, true},
		"the key is the same":  {func(*Key) {}, false},
		"another priority too": {func(k *Key) { k.Priority = "low" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key, sum := NewKey()
			alice := Key{Name: "alice", SHA256: sum}
			log := slog.New(slog.DiscardHandler)
			credentials, err := LoadCredentials(CredentialFiles{Named: []Key{alice}}, log)
			if err != nil {
				t.Fatal(err)
			}
			g := New(Options{Models: newModels(t, "a"), Log: log, Credentials: credentials})
			t.Cleanup(g.Close)
			url := serveGateway(t, g)
			for _, path := range []string{"/models/sse", "/activity/sse", "/status/events"} {
				res := getAs(t, url+path, key) //nolint:bodyclose // closed when the test ends
				if res.StatusCode != http.StatusOK {
					t.Fatalf("%s: %s", path, res.Status)
				}
				ended := make(chan struct{})
				go func() { _, _ = io.Copy(io.Discard, bufio.NewReader(res.Body)); close(ended) }()
				changed := alice
				tt.change(&changed)
				if err := credentials.Replace(CredentialFiles{Named: []Key{changed}}); err != nil {
					t.Fatal(err)
				}
				if tt.ends {
					<-ended
				} else {
					select {
					case <-ended:
						t.Errorf("%s has ended", path)
					case <-time.After(2 * activityInterval):
					}
				}
				if err := credentials.Replace(CredentialFiles{Named: []Key{alice}}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// pipeWriter is a response over a connection without a buffer.
type pipeWriter struct{ net.Conn }

func (pipeWriter) Header() http.Header { return http.Header{} }
func (pipeWriter) WriteHeader(int)     {}
func (pipeWriter) Flush()              {}

// A client that does not read its stream loses it.
func TestStreamsOfClientsThatDoNotReadEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		credentials, err := LoadCredentials(CredentialFiles{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		g := New(Options{Log: slog.New(slog.DiscardHandler), Credentials: credentials})
		defer g.Close()
		server, client := net.Pipe()
		defer func() { _ = client.Close() }()
		r := httptest.NewRequest(http.MethodGet, "/models/sse", nil)
		start := time.Now()
		g.watchModels(pipeWriter{server}, r.WithContext(context.WithValue(t.Context(), exchangeKey{}, &exchange{})))
		if took := time.Since(start); took != watchComments+commentDeadline {
			t.Errorf("it ended after %s", took)
		}
	})
}
