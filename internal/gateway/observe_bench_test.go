package gateway

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/activity"
	"forge.lthn.ai/core/go-rocm/internal/metrics"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// BenchmarkToken writes an event of a stream through the part of the chain that
// scans and measures it, with metrics and without. Compare the two: the difference is
// what the metrics cost for a token, next to the tens of microseconds in which the
// event passes the proxy and two sockets. Neither allocates.
func BenchmarkToken(b *testing.B) {
	event := []byte(chatStream()[0])
	for _, bb := range []struct {
		name    string
		metrics bool
	}{{"with metrics", true}, {"scan only", false}} {
		b.Run(bb.name, func(b *testing.B) {
			w := &tokenWriter{ResponseWriter: discard{}, began: true, stream: bb.metrics}
			if bb.metrics {
				m, _ := metrics.New(metrics.Options{})
				w.gap = m.Gap("qwen")
				w.request = activity.NewLog(activity.Options{}).Begin(activity.Record{Time: time.Now()})
			}
			b.ReportAllocs()
			b.SetBytes(int64(len(event)))
			for b.Loop() {
				if _, err := w.Write(event); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStream sends a request for a stream of 100 tokens through a whole gateway
// and its sockets, with metrics and without.
func BenchmarkStream(b *testing.B) {
	for _, bb := range []struct {
		name    string
		metrics bool
	}{{"with metrics", true}, {"without", false}} {
		b.Run(bb.name, func(b *testing.B) {
			o := Options{}
			if bb.metrics {
				m, _ := metrics.New(metrics.Options{})
				o.Metrics = m
			}
			url := benchGateway(b, o, 100)
			for b.Loop() {
				res, err := http.Post(url+"/completion", "application/json", http.NoBody)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, res.Body); err != nil || n == 0 {
					b.Fatal(n, err)
				}
				_ = res.Body.Close()
			}
		})
	}
}

// benchGateway returns the URL of a gateway whose backend answers with that many
// tokens.
func benchGateway(b *testing.B, o Options, tokens int) string {
	b.Helper()
	event := chatStream()[0]
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		for range tokens {
			_, _ = io.WriteString(w, event)
			_ = http.NewResponseController(w).Flush()
		}
	}))
	b.Cleanup(backend.Close)
	o.Log = slog.New(slog.DiscardHandler)
	var err error
	if o.Credentials, err = LoadCredentials(CredentialFiles{}, o.Log); err != nil {
		b.Fatal(err)
	}
	g := New(o)
	b.Cleanup(g.Close)
	g.SetModel(rocm.ModelStatus{Name: "qwen"}, &testBackend{srv: backend, state: supervise.Ready}, 0)
	srv := httptest.NewServer(g)
	b.Cleanup(srv.Close)
	return srv.URL
}
