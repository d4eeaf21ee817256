package gateway

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// keyLimits enforces the limits of named keys.
type keyLimits struct {
	usage *tokenUsage

	mu   sync.Mutex
	keys map[string]*keyState
}

// keyState is what is counted for a key.
type keyState struct {
	rate    *rate.Limiter
	running int
}

func newKeyLimits(usage *tokenUsage) *keyLimits {
	return &keyLimits{usage: usage, keys: map[string]*keyState{}}
}

// limitError rejects a request because a limit of its key is reached.
type limitError struct {
	key   *Key
	limit string
	wait  time.Duration // until the limit is free again; 0: unknown
	long  bool          // so long that a client should not retry by itself
}

// Error implements error.
func (e *limitError) Error() string {
	when := "retry when one of them has ended"
	if e.wait > 0 {
		when = "retry in " + roundUp(e.wait).String()
	}
	return fmt.Sprintf("the limit of %s for the key %q is reached; %s", e.limit, e.key.Name, when)
}

// roundUp returns whole seconds, at least one.
func roundUp(d time.Duration) time.Duration {
	return max(time.Second, (d + time.Second - 1).Truncate(time.Second))
}

// acquire admits a request of a key, or returns a limitError. The rate is the last
// limit, so that a request that another one rejects does not count.
func (l *keyLimits) acquire(k *Key, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.keys[k.Name]
	if s == nil {
		s = &keyState{rate: rate.NewLimiter(rate.Inf, 0)}
		l.keys[k.Name] = s
	}
	if k.TokensPerDay > 0 && l.usage.used(k.Name, now) >= k.TokensPerDay {
		return &limitError{key: k, limit: fmt.Sprintf("%d tokens per day", k.TokensPerDay), wait: nextDay(now).Sub(now), long: true}
	}
	if k.Concurrent > 0 && s.running >= k.Concurrent {
		return &limitError{key: k, limit: fmt.Sprintf("%d requests at once", k.Concurrent)}
	}
	if err := s.reserve(k, now); err != nil {
		return err
	}
	s.running++
	return nil
}

// reserve counts a request for the rate.
func (s *keyState) reserve(k *Key, now time.Time) error {
	perMinute := k.RequestsPerMinute
	if perMinute == 0 {
		s.rate = rate.NewLimiter(rate.Inf, 0)
		return nil
	}
	if s.rate.Burst() != perMinute { // new, or the settings have changed
		s.rate = rate.NewLimiter(rate.Limit(float64(perMinute)/60), perMinute)
	}
	r := s.rate.ReserveN(now, 1)
	if wait := r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return &limitError{key: k, limit: fmt.Sprintf("%d requests per minute", perMinute), wait: wait}
	}
	return nil
}

// release ends a request of a key.
func (l *keyLimits) release(k *Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys[k.Name].running--
}

// nextDay returns when the next day of UTC begins.
func nextDay(now time.Time) time.Time {
	return now.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
}

// limitKey rejects requests beyond the limits of their key. Requests that need no
// slot pass.
func (g *Gateway) limitKey(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k := exchangeOf(r.Context()).key
		if rt, _ := g.findRoute(r.URL.Path); k == nil || rt.light {
			next.ServeHTTP(w, r)
			return
		}
		if err := g.keys.acquire(k, time.Now()); err != nil {
			writeLimit(w, err)
			return
		}
		defer g.keys.release(k)
		next.ServeHTTP(w, r)
	})
}

// writeLimit answers a request beyond a limit of its key.
func writeLimit(w http.ResponseWriter, err error) {
	if e, ok := err.(*limitError); ok { //nolint:errorlint // keyLimits returns no other
		setRetryAfter(w, max(e.wait, time.Second))
		if e.long {
			w.Header().Set("X-Should-Retry", "false")
		}
	}
	writeError(w, http.StatusTooManyRequests, "rate_limit_error", err.Error())
}
