package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

func TestQueueSharesPlacesBetweenClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1, 10, 10)
		if err := q.acquire(t.Context(), "a", 0); err != nil {
			t.Fatal(err)
		}
		got := make(chan string, 10)
		for _, client := range []string{"a", "a", "a", "b"} {
			go func() {
				if q.acquire(t.Context(), client, 0) == nil {
					got <- client
				}
			}()
			synctest.Wait()
		}
		var order strings.Builder
		last := "a"
		for range 4 {
			q.release(last)
			last = <-got
			order.WriteString(last)
		}
		q.release(last)
		if order.String() != "aaab" && order.String() != "baaa" && order.String() != "abaa" || q.count != 0 || len(q.active) != 0 || len(q.waits) != 0 {
			t.Errorf("%s, left %+v", order.String(), q)
		}
	})
}

// With two places, a client that has one waits behind a client that has none.
func TestQueuePrefersTheClientWithFewerPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2, 10, 10)
		for range 2 {
			if err := q.acquire(t.Context(), "a", 0); err != nil {
				t.Fatal(err)
			}
		}
		got := make(chan string, 2)
		for _, client := range []string{"a", "b"} {
			go func() {
				if q.acquire(t.Context(), client, 0) == nil {
					got <- client
				}
			}()
			synctest.Wait()
		}
		q.release("a")
		if first := <-got; first != "b" {
			t.Errorf("the place went to %s", first)
		}
		q.release("a")
		<-got
	})
}

func TestQueueIsLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1, 3, 2)
		ctx, cancel := context.WithCancel(t.Context())
		if err := q.acquire(ctx, "a", 0); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			go func() { _ = q.acquire(ctx, "a", 0) }()
		}
		synctest.Wait()
		if err := q.acquire(ctx, "a", 0); !errors.Is(err, errBusy) {
			t.Errorf("a third of one client waits: %v", err)
		}
		go func() { _ = q.acquire(ctx, "b", 0) }()
		synctest.Wait()
		if err := q.acquire(ctx, "c", 0); !errors.Is(err, errBusy) {
			t.Errorf("a fourth waits: %v", err)
		}
		cancel()
		synctest.Wait()
		if len(q.waiting) != 0 || q.count != 1 || len(q.waits) != 0 {
			t.Errorf("left %+v", q)
		}
		q.release("a")
	})
}

// Uploads that never finish neither occupy slots nor delay other clients.
func TestSlowUploadsOccupyNoSlot(t *testing.T) {
	t.Parallel()
	b := newFakeBackend(t, fakellama.Script{Reply: "quick"})
	url := serveGateway(t, newGateway(t, b))
	host := strings.TrimPrefix(url, "http://")
	for range 200 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err := fmt.Fprintf(conn, "POST /completion HTTP/1.1\r\nHost: %s\r\nContent-Length: 20000000\r\n\r\n{", host); err != nil {
			t.Fatal(err)
		}
	}
	if got := send(t, "POST", url+"/completion", `{"prompt":"x"}`); got.status != 200 || !strings.Contains(got.body, "quick") {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestSlowUploadsEnd(t *testing.T) {
	t.Parallel()
	g := newGateway(t, newFakeBackend(t, fakellama.Script{}))
	g.pace = bodyPace{grace: 50 * time.Millisecond, bytes: 1 << 20}
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, serveGateway(t, g)+"/completion", r)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.WriteString(w, "{") }()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _ = res.Body.Close(); res.StatusCode != http.StatusRequestTimeout {
		t.Errorf("%d", res.StatusCode)
	}
}

func TestBodiesShareMemory(t *testing.T) {
	t.Parallel()
	g := newGateway(t, newFakeBackend(t, fakellama.Script{}))
	g.memory = newBodyMemory(1<<20, 1<<19)
	url := serveGateway(t, g)
	large := `{"prompt":"x","user":"` + strings.Repeat("x", 1<<20) + `"}`
	if got := send(t, "POST", url+"/completion", large); got.status != 429 || got.header.Get("Retry-After") == "" {
		t.Errorf("%d %v, want 429", got.status, got.header)
	}
	if got := send(t, "POST", url+"/completion", `{"prompt":"x"}`); got.status != 200 {
		t.Errorf("a small one: %d %s", got.status, got.body)
	}
	g.memory.waitEmpty(t)
}

// waitEmpty waits until nothing is reserved: the gateway releases the memory of a
// body after the client has its answer.
func (m *bodyMemory) waitEmpty(t *testing.T) {
	t.Helper()
	poll.Until(t, "the release of all memory", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.used == 0 && len(m.client) == 0
	})
}

// A waiting client does not block other clients.
func TestRequestsBeyondTheQueueAre429(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	arrived := make(chan struct{}, 10)
	b := newBackend(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived <- struct{}{}; <-release }))
	g := newGateway(t, b)
	g.limits.Queue, g.limits.QueuePerClient = 1, 1
	g.SetBackend(b, 1)
	url := serveGateway(t, g)
	var done sync.WaitGroup
	defer done.Wait()
	defer close(release)
	for range 2 {
		done.Go(func() { send(t, "POST", url+"/completion", `{"prompt":"x"}`) })
	}
	<-arrived
	heavy := g.servedModel(&singleLease{slots: 1}).heavy
	poll.Until(t, "the second request to wait", func() bool {
		heavy.mu.Lock()
		defer heavy.mu.Unlock()
		return len(heavy.waiting) == 1
	})
	if got := send(t, "POST", url+"/completion", `{"prompt":"x"}`); got.status != 429 || got.header.Get("Retry-After") == "" {
		t.Errorf("%d %v, want 429", got.status, got.header)
	}
}
