package cli

import (
	"bufio"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
)

// envAPIKey holds the key that clients must give, where no file does.
const envAPIKey = "GOROCM_API_KEY" //nolint:gosec // the name of a variable, no key

// access is who may ask, and by what the server is known.
type access struct {
	keys [][sha256.Size]byte // none: only this machine may
	cert *tls.Certificate    // nil: no TLS
}

// knows compares a key with all of ours in constant time.
func (a *access) knows(key string) bool {
	sum := sha256.Sum256([]byte(key))
	found := 0
	for _, k := range a.keys {
		found |= subtle.ConstantTimeCompare(sum[:], k[:])
	}
	return found == 1
}

// access reads what the flags name.
func (f *serveFlags) access() (*access, error) {
	keys, err := apiKeys(f.keyFile, os.Getenv(envAPIKey))
	if err != nil {
		return nil, err
	}
	local, err := isLocal(f.listen)
	if err != nil {
		return nil, err
	}
	if !local && len(keys) == 0 {
		return nil, fmt.Errorf("%w: others can reach %s, so an API key is needed: give --api-key-file, or set %s", errUsage, f.listen, envAPIKey)
	}
	a := &access{}
	for _, k := range keys {
		a.keys = append(a.keys, sha256.Sum256([]byte(k)))
	}
	if (f.tlsCert == "") != (f.tlsKey == "") {
		return nil, fmt.Errorf("%w: --tls-cert and --tls-key go together", errUsage)
	}
	if f.tlsCert != "" {
		cert, err := tls.LoadX509KeyPair(f.tlsCert, f.tlsKey)
		if err != nil {
			return nil, fmt.Errorf("tls: %s and %s: %w", f.tlsCert, f.tlsKey, err)
		}
		a.cert = &cert
	}
	return a, nil
}

// keeper holds the access, which is read again on SIGHUP.
type keeper struct {
	f   *serveFlags
	log *slog.Logger
	now atomic.Pointer[access]
}

// load reads the files. What is wrong with them is wrong with the settings file,
// if that names them: another try is then of no use.
func (k *keeper) load() error {
	a, err := k.f.access()
	if err != nil && k.f.config != "" {
		return &problem{path: k.f.config, text: strings.TrimPrefix(err.Error(), errUsage.Error()+": ")}
	}
	if err == nil {
		k.now.Store(a)
	}
	return err
}

// reloadOn reads the files again at each of the signals until the returned
// function is called. What was read before stays where that fails.
func (k *keeper) reloadOn(signals []os.Signal) (stop func()) {
	if len(signals) == 0 {
		return func() {}
	}
	came := make(chan os.Signal, 1)
	signal.Notify(came, signals...)
	var done sync.WaitGroup
	done.Go(func() {
		for range came {
			if err := k.load(); err != nil {
				k.log.Error("keys and certificate stay as they were", "cause", err.Error())
				continue
			}
			k.log.Info("read again", "keys", len(k.now.Load().keys), "tls", k.now.Load().cert != nil)
		}
	})
	return func() { signal.Stop(came); close(came); done.Wait() }
}

// certificate is for tls.Config.
func (k *keeper) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return k.now.Load().cert, nil
}

// apiKeys reads the keys: lines of a file that are neither empty nor begin with
// #, and the environment's.
func apiKeys(file, env string) ([]string, error) {
	var keys []string
	if env = strings.TrimSpace(env); env != "" {
		if err := checkKey(env); err != nil {
			return nil, fmt.Errorf("api keys: $%s: %w", envAPIKey, err)
		}
		keys = append(keys, env)
	}
	if file == "" {
		return keys, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("api keys: %w", err)
	}
	defer func() { _ = f.Close() }()
	before := len(keys)
	sc := bufio.NewScanner(f)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := checkKey(line); err != nil {
			return nil, fmt.Errorf("api keys: %s:%d: %w", file, n, err)
		}
		keys = append(keys, line)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("api keys: %s: %w", file, err)
	}
	if len(keys) == before {
		return nil, fmt.Errorf("api keys: %s holds none; write one a line", file)
	}
	return keys, nil
}

// checkKey refuses what no client can send as a bearer token (RFC 6750): such a
// line is a remark, or of another file.
func checkKey(key string) error {
	for _, c := range key {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("%q cannot be in a key, which is of visible ASCII characters without spaces; remarks are lines that begin with #", c)
		}
	}
	return nil
}
