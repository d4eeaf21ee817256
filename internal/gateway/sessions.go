package gateway

import (
	"crypto/rand"
	"crypto/sha256"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// sessionIdle is how long a session lasts after its last request, and sessionAge
	// how long at most. The browser forgets its cookie earlier, when it is closed.
	sessionIdle = 12 * time.Hour
	sessionAge  = 7 * 24 * time.Hour
	// maxSessions limits the sessions of the service, maxSessionsPerKey those of a key; a
	// new one ends the one that was used the longest time ago, of the same key if that has
	// as many as it may: nobody signs the others out.
	maxSessions, maxSessionsPerKey = 1024, 128
	// signInBurst is how many wrong keys an address may try at once, and signInPause
	// the time until it may try another one. An address is a network of 64 bits in IPv6.
	signInBurst = 10
	signInPause = 6 * time.Second
	// maxAddresses limits the addresses that wrong keys are counted for. Further ones count
	// together, as otherAddresses.
	maxAddresses, otherAddresses = 4096, ""
)

// sessions are the browsers that have signed in with an API key. They are in memory
// only: a restart of the service ends them. A session has no rights of its own. It
// stands for a key, and ends when that key is removed.
type sessions struct {
	now func() time.Time

	mu    sync.Mutex
	byKey map[[sha256.Size]byte]*session // by the digest of the token
	tries map[string]*rate.Limiter       // wrong keys by address
}

// session is a browser that has signed in.
type session struct {
	key           [sha256.Size]byte // digest of its API key
	created, used time.Time
}

func newSessions() *sessions {
	return &sessions{now: time.Now, byKey: map[[sha256.Size]byte]*session{}, tries: map[string]*rate.Limiter{}}
}

// create starts a session for a key and returns its token.
func (s *sessions) create(key string) (token string) {
	token = rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	digest := sha256.Sum256([]byte(key))
	s.makeRoom(maxSessionsPerKey, func(one *session) bool { return one.key == digest })
	s.makeRoom(maxSessions, func(*session) bool { return true })
	s.byKey[sha256.Sum256([]byte(token))] = &session{key: digest, created: s.now(), used: s.now()}
	return token
}

// makeRoom ends the session that was used the longest time ago, of those that count, if
// limit of them or more do.
func (s *sessions) makeRoom(limit int, counts func(*session) bool) {
	var oldest [sha256.Size]byte
	at, n := s.now(), 0
	for id, one := range s.byKey {
		if !counts(one) {
			continue
		}
		if n++; !one.used.After(at) {
			oldest, at = id, one.used
		}
	}
	if n >= limit {
		delete(s.byKey, oldest)
	}
}

// expire ends the sessions whose time is over.
func (s *sessions) expire() {
	for id, one := range s.byKey {
		if s.now().Sub(one.used) > sessionIdle || s.now().Sub(one.created) > sessionAge {
			delete(s.byKey, id)
		}
	}
}

// find returns the digest of the key of a session. The session ends if c does not
// accept the key any longer.
func (s *sessions) find(token string, c *credentials) (key credential, ok bool) {
	if token == "" {
		return credential{}, false
	}
	id := sha256.Sum256([]byte(token)) // a map of digests needs no constant time
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	one := s.byKey[id]
	if one == nil {
		return credential{}, false
	}
	for _, k := range c.keys {
		if k.sum == one.key {
			one.used = s.now()
			return k, true
		}
	}
	delete(s.byKey, id)
	return credential{}, false
}

// has reports whether a session has not ended. It does not count as a use of it.
func (s *sessions) has(token string) bool {
	id := sha256.Sum256([]byte(token))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	return s.byKey[id] != nil
}

// end ends a session.
func (s *sessions) end(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byKey, sha256.Sum256([]byte(token)))
}

// mayTry reports whether an address may try a key, or else when. Only wrong keys
// count, by failed.
func (s *sessions) mayTry(address string) (wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.tries[address]
	if l == nil && len(s.tries) >= maxAddresses {
		l = s.tries[otherAddresses]
	}
	if l == nil || l.TokensAt(s.now()) >= 1 {
		return 0
	}
	return time.Duration((1 - l.TokensAt(s.now())) * float64(signInPause))
}

// failed counts a wrong key.
func (s *sessions) failed(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tries) >= maxAddresses {
		for other, l := range s.tries {
			if l.TokensAt(s.now()) >= signInBurst {
				delete(s.tries, other)
			}
		}
	}
	if s.tries[address] == nil && len(s.tries) >= maxAddresses {
		address = otherAddresses
	}
	if s.tries[address] == nil {
		s.tries[address] = rate.NewLimiter(rate.Every(signInPause), signInBurst)
	}
	s.tries[address].AllowN(s.now(), 1)
}

// clientNetwork returns what wrong keys of a client count for: its address, or in IPv6
// its network, of which one machine has all addresses.
func clientNetwork(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		return ip.Mask(net.CIDRMask(64, 128)).String()
	}
	return host
}

// cookieName returns the name of the session's cookie. Browsers send a cookie to all
// ports of a host, so that services on several ports need several names. The prefix
// __Host- makes browsers accept it from an encrypted answer of this host only.
func cookieName(r *http.Request) string {
	name := "gorocm"
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if _, port, err := net.SplitHostPort(addr.String()); err == nil {
			name += "-" + port
		}
	}
	if r.TLS != nil {
		return "__Host-" + name
	}
	return name
}

// sessionCookie returns the cookie with a session's token; an empty token deletes it.
func sessionCookie(r *http.Request, token string) *http.Cookie {
	c := &http.Cookie{Name: cookieName(r), Value: token, Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode} //nolint:gosec // without TLS a Secure cookie would not come back
	if token == "" {
		c.MaxAge = -1
	}
	return c
}

// sessionToken returns the token of the request's cookie, if the request is of the
// service's own page.
func sessionToken(r *http.Request) string {
	c, err := r.Cookie(cookieName(r))
	if err != nil || !isOwnPage(r) {
		return ""
	}
	return c.Value
}

// isOwnPage reports whether a browser sends the request for a page of this service, or
// because a person has opened an address. Browsers say so in Sec-Fetch-Site to
// encrypted and local services (https://www.w3.org/TR/fetch-metadata/), and in Origin
// with each request that may change something. A request that only reads may have
// neither: pages of other sites do not get the cookie, and cannot read the answer.
func isOwnPage(r *http.Request) bool {
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	origin := r.Header.Get("Origin")
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin":
		return origin == "" || isOwnOrigin(origin, r)
	case "none":
		return reads
	case "":
		return origin == "" && reads || isOwnOrigin(origin, r)
	}
	return false
}

// isOwnOrigin reports whether an origin is that of the service, as the client has
// addressed it. A proxy in front may add the encryption.
func isOwnOrigin(origin string, r *http.Request) bool {
	u, err := url.Parse(origin)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || r.TLS != nil && u.Scheme != "https" {
		return false
	}
	return strings.EqualFold(u.Host, r.Host)
}
