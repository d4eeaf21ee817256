package fakellama

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// pollTime is how long llama-server waits for a result before it looks whether the
// client has left (HTTP_POLLING_SECONDS in server-common.h). Each result of any
// request starts the wait again (recv_with_timeout in server-queue.cpp).
const pollTime = time.Second

// results remembers when results were sent to the waiting requests.
type results struct {
	mu   sync.Mutex
	last time.Time
	// The last pause between two results of at least pollTime.
	pauseFrom, pauseTo time.Time
}

// sent notes a result.
func (r *results) sent() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Sub(r.last) >= pollTime {
		r.pauseFrom, r.pauseTo = r.last, now
	}
	r.last = now
}

// untilPoll returns how long a wait goes on that began at start. It is 0 if pollTime
// has passed without a result, also if a result came before the waiting thread ran
// again, as after a pause of the process.
func (r *results) untilPoll(start time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pauseTo.Sub(later(start, r.pauseFrom)) >= pollTime {
		return 0
	}
	return max(0, pollTime-time.Since(later(start, r.last)))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// clientContext returns the context in which a request is computed. It ends when the
// server notices that the client has left.
func (s *Server) clientContext(r *http.Request) (context.Context, context.CancelFunc) {
	if !s.script.KeepsAbandoned {
		return r.Context(), func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	go func() {
		for start := time.Now(); ; {
			switch wait := s.results.untilPoll(start); {
			case wait > 0:
				if sleep(ctx, wait) != nil {
					return
				}
			case r.Context().Err() != nil:
				cancel()
				return
			default:
				start = time.Now()
			}
		}
	}()
	return ctx, cancel
}
