package gateway

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// slotBackend is a backend with slots that can be paused. Requests for tokens run
// until release is closed or their clients leave.
type slotBackend struct {
	*testBackend

	release chan struct{}

	mu      sync.Mutex
	running int
	lists   [][]int64 // the busy tasks of each answer to /slots, the last one for all further
	asked   int
	pauses  int
}

func newSlotBackend(t *testing.T, lists ...[]int64) *slotBackend {
	t.Helper()
	b := &slotBackend{release: make(chan struct{}), lists: lists}
	b.testBackend = newBackend(t, http.HandlerFunc(b.serve))
	return b
}

func (b *slotBackend) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/slots" {
		b.mu.Lock()
		defer b.mu.Unlock()
		list := b.lists[min(b.asked, len(b.lists)-1)]
		b.asked++
		slots := []map[string]any{{"id_task": 999, "is_processing": false}}
		for _, task := range list {
			slots = append(slots, map[string]any{"id_task": task, "is_processing": true})
		}
		_ = json.NewEncoder(w).Encode(slots)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	b.count(1)
	defer b.count(-1)
	select {
	case <-b.release:
	case <-r.Context().Done():
	}
}

func (b *slotBackend) count(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running += n
}

func (b *slotBackend) runs(n int) func() bool {
	return func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.running == n
	}
}

// Pause implements pauser. The next list is that of llama-server after it has looked.
func (b *slotBackend) Pause(time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pauses++
}

// Slots of requests whose clients have left are freed by a pause, and no other
// reason pauses the process.
func TestAbandonedRequestsPauseTheServer(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		lists  [][]int64
		others []string // bodies of requests that stay
		pauses int
	}{
		"kept":                {[][]int64{{1}, {1}, {}}, nil, 1},
		"kept after a pause":  {[][]int64{{1}, {1}, {1}, {1}, {}}, nil, 2},
		"freed":               {[][]int64{{1}, {}}, nil, 0},
		"another task":        {[][]int64{{1}, {2}}, nil, 0},
		"never had one":       {[][]int64{{}}, nil, 0},
		"another client":      {[][]int64{{1, 2}, {2}}, []string{`{"prompt":"x"}`}, 0},
		"kept beside another": {[][]int64{{1, 2}, {1, 2}, {2}, {2}}, []string{`{"prompt":"x"}`}, 1},
		"several choices":     {[][]int64{{1, 2, 3}, {2, 3}}, []string{`{"prompt":"x","n":2}`}, 0},
		"several prompts":     {[][]int64{{1, 2, 3}, {2, 3}}, []string{`{"prompt":["x","y"]}`}, 0},
	} {
		b := newSlotBackend(t, tt.lists...)
		g := newGateway(t, b)
		g.limits.Abandoned, g.limits.PauseInterval = time.Millisecond, time.Millisecond
		url := serveGateway(t, g)
		var done sync.WaitGroup
		for i, body := range tt.others {
			done.Go(func() { send(t, "POST", url+"/completion", body) })
			poll.Until(t, "a running request", b.runs(i+1))
		}
		ctx, leave := context.WithCancel(t.Context())
		done.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/completion", strings.NewReader(`{"prompt":"x"}`))
			if err == nil {
				_, err = http.DefaultClient.Do(req) //nolint:bodyclose // there is none
			}
			if err == nil {
				t.Errorf("%s: answered", name)
			}
		})
		poll.Until(t, "the request", b.runs(len(tt.others)+1))
		leave()
		poll.Until(t, "the end of the check", func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.asked >= len(tt.lists)
		})
		g.running.Wait()
		close(b.release)
		done.Wait()
		if b.pauses != tt.pauses {
			t.Errorf("%s: %d pauses, want %d", name, b.pauses, tt.pauses)
		}
	}
}

func TestAnsweredRequestsAreNotLookedFor(t *testing.T) {
	t.Parallel()
	b := newSlotBackend(t, []int64{1})
	close(b.release)
	g := newGateway(t, b)
	if got := send(t, "POST", serveGateway(t, g)+"/completion", `{"prompt":"x"}`); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
	g.Close()
	if b.asked != 0 || b.pauses != 0 {
		t.Errorf("looked %d times, paused %d times", b.asked, b.pauses)
	}
}
