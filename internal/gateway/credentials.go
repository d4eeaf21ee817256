package gateway

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

// EnvAPIKey is the environment variable with a key that clients may send, beside
// those of a key file.
const EnvAPIKey = "GOROCM_API_KEY" //nolint:gosec // the name of a variable, not a key

// CredentialFiles names the sources of a service's credentials.
type CredentialFiles struct {
	// KeyFile lists accepted API keys, one a line; empty: no file.
	KeyFile string
	// Key is another accepted key, the value of EnvAPIKey.
	Key string
	// Named are accepted keys with limits.
	Named []Key
	// TLSCert and TLSKey are PEM files; both empty: no TLS.
	TLSCert, TLSKey string
}

// credentials are the keys that clients authenticate with, and the certificate
// that the service authenticates with.
type credentials struct {
	keys []credential     // none: clients of this machine need no key
	cert *tls.Certificate // nil: no TLS
}

// credential is the digest of a key, and its limits if it has any.
type credential struct {
	sum   [sha256.Size]byte
	named *Key
}

// clientID names the client that requests with the key count for.
func (c credential) clientID() string { return hex.EncodeToString(c.sum[:8]) }

// find returns an accepted key, and whether it is one. It compares with every key in
// constant time.
func (c *credentials) find(key string) (credential, bool) {
	sum := sha256.Sum256([]byte(key))
	found := -1
	for i, k := range c.keys {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(sum[:], k.sum[:]), i, found)
	}
	if found < 0 {
		return credential{}, false
	}
	return c.keys[found], true
}

// CredentialError is an error about one source of credentials.
type CredentialError struct {
	// Flag is the flag of serve that names the source, without dashes; "keys" for
	// keys with limits; empty for the environment.
	Flag string
	// Err is the cause.
	Err error
}

// Error returns the text of the cause, which names the source.
func (e *CredentialError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *CredentialError) Unwrap() error { return e.Err }

// load reads the files. Its error joins a CredentialError for each source that is wrong.
func (f CredentialFiles) load(log *slog.Logger) (*credentials, error) {
	keys, err := readKeys(f.KeyFile, f.Key, log)
	errs := []error{err}
	c := &credentials{}
	for _, k := range keys {
		c.keys = append(c.keys, credential{sum: sha256.Sum256([]byte(k))})
	}
	errs = append(errs, c.addNamed(f.Named))
	if f.TLSCert != "" {
		cert, err := loadCertificate(f.TLSCert, f.TLSKey, log)
		errs = append(errs, err)
		c.cert = &cert
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, nil
}

// addNamed adds keys with limits.
func (c *credentials) addNamed(keys []Key) error {
	names := map[string]bool{}
	for i := range keys {
		k := &keys[i]
		if err := k.Check(); err != nil {
			return &CredentialError{"keys", fmt.Errorf("api keys: %q: %w", k.Name, err)}
		}
		sum, err := k.sum()
		if err != nil {
			return &CredentialError{"keys", err}
		}
		if names[k.Name] || slices.ContainsFunc(c.keys, func(other credential) bool { return other.sum == sum }) {
			return &CredentialError{"keys", fmt.Errorf("api keys: %q is there twice", k.Name)}
		}
		names[k.Name] = true
		c.keys = append(c.keys, credential{sum: sum, named: k})
	}
	return nil
}

// maxSecret limits a file of keys or of certificates, in bytes.
const maxSecret = 1 << 20

func warnTo(log *slog.Logger) func(text string) { return func(text string) { log.Warn(text) } }

// loadCertificate is tls.LoadX509KeyPair for regular files of limited size, of which
// the key is private.
func loadCertificate(cert, key string, log *slog.Logger) (tls.Certificate, error) {
	var errs []error
	certPEM, err := regfile.ReadPublic(cert, maxSecret)
	if err != nil {
		errs = append(errs, &CredentialError{"tls-cert", fmt.Errorf("tls: %w", err)})
	}
	keyPEM, err := regfile.ReadSecret(key, maxSecret, warnTo(log))
	if err != nil {
		errs = append(errs, &CredentialError{"tls-key", fmt.Errorf("tls: %w", err)})
	}
	if len(errs) > 0 {
		return tls.Certificate{}, errors.Join(errs...)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, &CredentialError{"tls-cert", fmt.Errorf("tls: %s and %s: %w", cert, key, err)}
	}
	return pair, nil
}

// CredentialStore holds the current credentials. Its methods may be called from
// any goroutine.
type CredentialStore struct {
	log     *slog.Logger
	current atomic.Pointer[credentials]

	mu    sync.Mutex
	files CredentialFiles
	// needsKey and isTLS describe the listener of the service; known is false before
	// there is one.
	known, needsKey, isTLS bool
}

// LoadCredentials reads the files.
func LoadCredentials(files CredentialFiles, log *slog.Logger) (*CredentialStore, error) {
	s := &CredentialStore{files: files, log: log}
	return s, s.reload()
}

// reload reads the files again. After an error the previous credentials remain.
func (s *CredentialStore) reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.use(s.files)
}

// reloadWith is reload with other keys with limits.
func (s *CredentialStore) reloadWith(named func() ([]Key, error)) error {
	keys, err := named()
	if err != nil {
		return err
	}
	s.mu.Lock()
	files := s.files
	s.mu.Unlock()
	files.Named = keys
	return s.Replace(files)
}

// Replace uses other files and keys from now on. After an error the previous ones
// remain.
func (s *CredentialStore) Replace(files CredentialFiles) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.use(files)
	if err == nil {
		s.files = files
	}
	return err
}

// Adopt uses what another store has read, and its files. The caller has asked Accepts.
func (s *CredentialStore) Adopt(other *CredentialStore) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = other.files
	s.current.Store(other.current.Load())
}

// Accepts reports why the service cannot use what another store has read.
func (s *CredentialStore) Accepts(other *CredentialStore) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.check(other.current.Load())
}

// Protect notes the address on which the service listens from now on. As long as it
// does, no reload removes the last key or the certificate that the address needs.
func (s *CredentialStore) Protect(address string) error {
	local, err := IsLocal(address)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known, s.needsKey, s.isTLS = true, !local, s.HasCertificate()
	return s.check(s.current.Load())
}

// check reports what the listener of the service needs and c has not.
func (s *CredentialStore) check(c *credentials) error {
	switch {
	case !s.known:
		return nil
	case s.needsKey && len(c.keys) == 0:
		return errors.New("no API key would be left, and other machines can reach the address on which the service listens: keep a key, or change the address and restart the service")
	case s.isTLS != (c.cert != nil):
		return errors.New("the service begins or ends the use of TLS only when it starts: restart it")
	}
	return nil
}

func (s *CredentialStore) use(files CredentialFiles) error {
	c, err := files.load(s.log)
	if err == nil {
		err = s.check(c)
	}
	if err == nil {
		s.current.Store(c)
	}
	return err
}

// HasKeys reports whether clients need a key.
func (s *CredentialStore) HasKeys() bool { return len(s.current.Load().keys) > 0 }

// HasCertificate reports whether the service uses TLS.
func (s *CredentialStore) HasCertificate() bool { return s.current.Load().cert != nil }

// certificate implements tls.Config.GetCertificate.
func (s *CredentialStore) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.current.Load().cert, nil
}

// ReloadOn reads the files again at each of the signals, until stop is called. named
// returns the keys with limits.
func (s *CredentialStore) ReloadOn(signals []os.Signal, named func() ([]Key, error)) (stop func()) {
	if len(signals) == 0 {
		return func() {}
	}
	received := make(chan os.Signal, 1)
	signal.Notify(received, signals...)
	var done sync.WaitGroup
	done.Go(func() {
		for range received {
			if err := s.reloadWith(named); err != nil {
				s.log.Error("API keys and certificate not reloaded; the previous ones remain in use", "cause", err.Error())
				continue
			}
			s.log.Info("API keys and certificate reloaded", "keys", len(s.current.Load().keys), "tls", s.HasCertificate())
		}
	})
	return func() { signal.Stop(received); close(received); done.Wait() }
}

// authenticate rejects requests without an accepted key, where there are keys. A
// browser that has signed in has the rights of its key. One that has not gets the
// sign-in page, where a person opens an address.
func (g *Gateway) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r.Context())
		c := g.credentials.current.Load()
		if len(c.keys) == 0 {
			x.client = clientAddress(r)
			next.ServeHTTP(w, r)
			return
		}
		sent := apiKey(r)
		key, ok := c.find(sent)
		if !ok && sent == "" && g.hasPages() {
			key, ok = g.sessions.find(sessionToken(r), c)
			x.signedIn = ok
		}
		switch {
		case ok:
			x.credential, x.key, x.client = key, key.named, key.clientID()
			next.ServeHTTP(w, r)
		case g.hasPages() && sent == "" && isVisit(r):
			w.Header().Set("Cache-Control", "no-store")
			http.Redirect(w, r, signInPath+"?next="+url.QueryEscape(localPath(r.URL.RequestURI())), http.StatusSeeOther)
		default:
			w.Header().Set("WWW-Authenticate", "Bearer")
			writeError(w, http.StatusUnauthorized, "authentication_error", "the API key is missing or wrong")
		}
	})
}

// apiKey returns the key that a client sent: a bearer token (RFC 6750; the name of
// the scheme is case-insensitive, RFC 9110 11.1), a bare key as llama-server
// accepts it, or the value of Anthropic's X-Api-Key.
func apiKey(r *http.Request) string {
	key := strings.TrimSpace(r.Header.Get("Authorization"))
	if key == "" {
		return strings.TrimSpace(r.Header.Get("X-Api-Key"))
	}
	if scheme, token, ok := strings.Cut(key, " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return key
}

// readKeys returns the key of the environment and those of a file.
func readKeys(file, env string, log *slog.Logger) ([]string, error) {
	var keys []string
	var errs []error
	if env = strings.TrimSpace(env); env != "" {
		if err := checkKey(env); err != nil {
			errs = append(errs, &CredentialError{"", fmt.Errorf("api keys: $%s: %w", EnvAPIKey, err)})
		}
		keys = append(keys, env)
	}
	if file != "" {
		fileKeys, err := readKeyFile(file, log)
		if err != nil {
			errs = append(errs, &CredentialError{"api-key-file", fmt.Errorf("api keys: %w", err)})
		}
		keys = append(keys, fileKeys...)
	}
	return keys, errors.Join(errs...)
}

// readKeyFile returns the lines of a file, except for empty ones and comments.
func readKeyFile(file string, log *slog.Logger) (keys []string, err error) {
	text, err := regfile.ReadSecret(file, maxSecret, warnTo(log))
	if err != nil {
		return nil, err
	}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		line := string(bytes.TrimSpace(line))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := checkKey(line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, n, err)
		}
		keys = append(keys, line)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s has no keys; write one a line", file)
	}
	return keys, nil
}

// checkKey rejects a line that no client can send as a bearer token (RFC 6750): it
// is a comment, or belongs to another kind of file.
func checkKey(key string) error {
	for _, c := range key {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("a key must not contain %q: keys consist of visible ASCII characters without spaces, and comment lines begin with #", c)
		}
	}
	return nil
}
