package gateway

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
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

// Check reports what is wrong with a key's settings.
func (k *Key) Check() error {
	_, err := k.sum()
	switch _, known := priorities()[k.Priority]; {
	case k.Name == "":
		return errors.New("a key needs a name")
	case err != nil:
		return err
	case k.RequestsPerMinute < 0, k.TokensPerDay < 0, k.Concurrent < 0:
		return errors.New("a limit must not be negative; leave it out for no limit")
	case !known:
		return fmt.Errorf("unknown priority %q: write low, normal or high", k.Priority)
	}
	for _, pattern := range k.Models {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return fmt.Errorf("%q is not a pattern; write a model's name, in which * matches any text", pattern)
		}
	}
	return nil
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
func (k *Key) allows(m ModelStatus) bool {
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
