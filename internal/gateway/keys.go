package gateway

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/time/rate"

	"forge.lthn.ai/core/go-rocm"
)

// Key is an API key with a name and limits. Keys of a key file have neither.
type Key struct {
	// Name appears in messages and in the file of used tokens.
	Name string
	// SHA256 is the hexadecimal SHA-256 of the key itself.
	SHA256 string
	// Models are patterns of path.Match for the names and aliases of the models
	// that the key may use, in which * also matches slashes; none: all models.
	Models []string
	// RequestsPerMinute is how many requests are accepted in a minute on average,
	// and at once after a pause; 0: no limit.
	RequestsPerMinute int
	// TokensPerDay is how many tokens of prompts and answers are computed in a day
	// of UTC; a request that exceeds it is finished. 0: no limit.
	TokensPerDay int64
	// Concurrent is how many requests may run or wait at once; 0: no limit.
	Concurrent int
	// Priority is "low", "normal" or "high"; "" means normal.
	Priority string
}

// priorities are the values of Key.Priority, as numbers for AcquireRequest.
func priorities() map[string]int { return map[string]int{"low": -1, "": 0, "normal": 0, "high": 1} }

// KeySettingError is a mistake in a setting of a key.
type KeySettingError struct {
	// Setting is the setting's name in the configuration file, such as "priority".
	Setting string
	// Err is what is wrong with it.
	Err error
}

// Error returns the text of Err.
func (e *KeySettingError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *KeySettingError) Unwrap() error { return e.Err }

// Check reports what is wrong with a key's settings: its error joins a KeySettingError
// for each mistake.
func (k *Key) Check() error {
	var errs []error
	invalid := func(setting, format string, args ...any) {
		errs = append(errs, &KeySettingError{setting, fmt.Errorf(format, args...)})
	}
	if k.Name == "" || strings.ContainsFunc(k.Name, unicode.IsControl) {
		invalid("name", "a key needs a name without control characters")
	}
	if _, err := k.sum(); err != nil {
		invalid("sha256", "%w", err)
	}
	for _, limit := range []struct {
		setting string
		value   int64
	}{{"requests-per-minute", int64(k.RequestsPerMinute)}, {"tokens-per-day", k.TokensPerDay}, {"concurrent", int64(k.Concurrent)}} {
		if limit.value < 0 {
			invalid(limit.setting, "a limit must not be negative; leave it out for no limit")
		}
	}
	if _, known := priorities()[k.Priority]; !known {
		invalid("priority", "unknown priority %q: write low, normal or high", k.Priority)
	}
	for _, pattern := range k.Models {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			invalid("models", "%q is not a pattern; write a model's name, in which * matches any text", pattern)
		}
	}
	return errors.Join(errs...)
}

// sum decodes SHA256.
func (k *Key) sum() (sum [sha256.Size]byte, err error) {
	raw, err := hex.DecodeString(k.SHA256)
	if err != nil || len(raw) != sha256.Size {
		return sum, errors.New("sha256 must have 64 hexadecimal digits; \"go-rocm config key\" prints them")
	}
	return [sha256.Size]byte(raw), nil
}

// allows reports whether the key may use a model. A nil key may use all.
func (k *Key) allows(m rocm.ModelStatus) bool {
	if k == nil || len(k.Models) == 0 {
		return true
	}
	for _, name := range append([]string{m.Name}, m.Aliases...) {
		if slices.ContainsFunc(k.Models, func(pattern string) bool { return matchName(pattern, name) }) {
			return true
		}
	}
	return false
}

// matchName is path.Match with a * that matches slashes.
func matchName(pattern, name string) bool {
	const slash = "\x00"
	ok, err := path.Match(strings.ReplaceAll(pattern, "/", slash), strings.ReplaceAll(name, "/", slash))
	return err == nil && ok
}

// name returns the key's name. A nil key has none.
func (k *Key) name() string {
	if k == nil {
		return ""
	}
	return k.Name
}

// priority returns the number of the key's priority. A nil key has 0.
func (k *Key) priority() int {
	if k == nil {
		return 0
	}
	return priorities()[k.Priority]
}

// NewKey returns a random API key and the value of Key.SHA256 for it.
func NewKey() (key, sum string) {
	key = "gorocm-" + rand.Text()
	digest := sha256.Sum256([]byte(key))
	return key, hex.EncodeToString(digest[:])
}

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
