package gateway

import (
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

func TestEndsRequestsWithoutToken(t *testing.T) {
	t.Parallel()
	// A limit that must not be reached is far from what the backend does.
	const soon, late = 300 * time.Millisecond, time.Minute
	for name, tt := range map[string]struct {
		first, idle time.Duration
		backend     http.HandlerFunc
		status      int
		says        string
	}{
		"no answer": {soon, late, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // the server detects a disconnect only after it has read the body
			<-r.Context().Done()
		}, 504, "timeout_error"},
		"pings alone": {late, soon, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: {}\n\n")
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, ": ping\n\n")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		}, 200, "timeout_error"},
		"tokens": {late, 2 * time.Second, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for range 20 {
				_, _ = io.WriteString(w, "data: {}\n\n")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(150 * time.Millisecond)
			}
			_, _ = io.WriteString(w, "data: [DONE]\n\n")
		}, 200, "[DONE]"},
		"endless": {late, late, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "text/event-stream")
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, "data: "+strings.Repeat("x", 1000)+"\n\n"); err != nil {
					return
				}
			}
		}, 200, "grew too large"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, newBackend(t, tt.backend))
			g.limits.FirstByte, g.limits.Idle, g.limits.ResponseBytes = tt.first, tt.idle, 1<<20
			got := send(t, "POST", serveGateway(t, g)+"/completion", `{"prompt":"x","stream":true}`)
			if got.status != tt.status || !strings.Contains(got.body, tt.says) {
				t.Errorf("%d ...%s", got.status, got.body[max(0, len(got.body)-200):])
			}
		})
	}
}

// The process is restarted only if it does not react after the request was ended.
func TestRestartsABackendThatDoesNotReact(t *testing.T) {
	t.Parallel()
	for name, stuck := range map[string]bool{"stuck": true, "slow": false} {
		b := newBackend(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if r.Method == http.MethodPost || stuck {
				<-r.Context().Done()
			}
		}))
		restarted, checked := make(chan struct{}), make(chan struct{})
		g := newGateway(t, b)
		g.restart = func(string) { close(restarted) }
		g.limits.FirstByte, g.limits.Reclaim = 50*time.Millisecond, 100*time.Millisecond
		if got := send(t, "POST", serveGateway(t, g)+"/completion", `{"prompt":"x"}`); got.status != 504 {
			t.Errorf("%s: %d", name, got.status)
		}
		if stuck {
			<-restarted
			continue
		}
		lease := &singleLease{backend: b}
		go func() { g.checkBackend(&exchange{lease: lease, served: g.servedModel(lease)}); close(checked) }()
		<-checked
		select {
		case <-restarted:
			t.Errorf("%s: restarted", name)
		default:
		}
	}
}

// crashingBackend fails each request as the client of a supervise.Child does.
type crashingBackend struct {
	*testBackend

	exit *supervise.ExitError
}

// HTTPClient implements Backend.
func (b crashingBackend) HTTPClient() *http.Client {
	return &http.Client{Transport: roundTripperFunc(func(r *http.Request) (*http.Response, error) {
		if r.Body != nil {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		return nil, b.exit
	})}
}

func TestClientsThatCrashTheServerPause(t *testing.T) {
	t.Parallel()
	g := newGateway(t, crashingBackend{newBackend(t, http.NotFoundHandler()), &supervise.ExitError{Code: -1}}, "bad", "good")
	url := serveGateway(t, g)
	ask := func(key string) response {
		return send(t, "POST", url+"/completion", `{"prompt":"x"}`, "Authorization", "Bearer "+key)
	}
	for i, want := range []int{502, 502, 429} {
		if got := ask("bad"); got.status != want || want == 429 && got.header.Get("Retry-After") == "" {
			t.Errorf("request %d: %d %v, want %d", i, got.status, got.header, want)
		}
	}
	if got := ask("good"); got.status != 502 {
		t.Errorf("another client: %d", got.status)
	}
}

// A client that only watches has no part in a crash.
func TestReadsCountForNoCrash(t *testing.T) {
	t.Parallel()
	url := serveGateway(t, newGateway(t, crashingBackend{newBackend(t, http.NotFoundHandler()), &supervise.ExitError{Code: -1}}))
	for _, path := range []string{"/metrics", "/slots", "/props", "/lora-adapters", "/v1/models/NAME"} {
		if got := send(t, "GET", url+path, ""); got.status != 502 {
			t.Errorf("GET %s: %d %s", path, got.status, got.body)
		}
	}
	if got := send(t, "POST", url+"/completion", `{"prompt":"x"}`); got.status != 502 {
		t.Errorf("its first request: %d %s", got.status, got.body)
	}
}

// A process that somebody kills counts for no client.
func TestKilledServersCountForNobody(t *testing.T) {
	t.Parallel()
	exit := &supervise.ExitError{Code: -1, Signal: syscall.SIGKILL}
	url := serveGateway(t, newGateway(t, crashingBackend{newBackend(t, http.NotFoundHandler()), exit}))
	for i := range 5 {
		if got := send(t, "POST", url+"/completion", `{"prompt":"x"}`); got.status != 502 {
			t.Errorf("request %d: %d %s", i, got.status, got.body)
		}
	}
}

func TestCrashesAreForgotten(t *testing.T) {
	t.Parallel()
	c := crashes{clients: map[string]*crashRecord{}}
	now := time.Now()
	c.record("a", now)
	c.record("a", now)
	if got := c.pause("a", now); got != crashPause {
		t.Errorf("after two %s", got)
	}
	c.record("a", now)
	if got := c.pause("a", now); got != 2*crashPause {
		t.Errorf("after three %s", got)
	}
	for range 100 {
		c.record("a", now)
	}
	if got := c.pause("a", now); got != crashPauseMax {
		t.Errorf("after many %s", got)
	}
	later := now.Add(crashWindow + time.Second)
	if c.record("b", later); len(c.clients) != 1 || c.pause("a", later) != 0 {
		t.Errorf("left %v", c.clients)
	}
}
