package supervise

import (
	"sync"
	"time"
)

// streams holds the responses that have begun.
type streams struct {
	mu   sync.Mutex
	open map[*trackedBody]time.Time // when the response began
}

func (s *streams) add(b *trackedBody) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*trackedBody]time.Time{}
	}
	s.open[b] = time.Now()
}

func (s *streams) remove(b *trackedBody) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, b)
}

// none reports whether no response is open.
func (s *streams) none() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open) == 0
}

// waiting returns the responses whose reader waits for llama-server, which therefore
// computes them: what it has computed, it has sent.
func (s *streams) waiting() []*trackedBody {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*trackedBody
	for b := range s.open {
		if b.reading.Load() && workOf(b.req.Context()).Judged {
			out = append(out, b)
		}
	}
	return out
}

// still returns how many of the responses are still open and began before a time.
func (s *streams) still(of []*trackedBody, before time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, b := range of {
		if began, ok := s.open[b]; ok && began.Before(before) {
			n++
		}
	}
	return n
}
