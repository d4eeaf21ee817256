// Package recipe turns the pinned llama.cpp source into a bundle directory: it
// fetches and checks the source, compiles it in a locked-down container by
// options that are data, and collects the result with everything it needs at
// run time.
//
// Each step is a stage of the cache, keyed by the digest of its inputs, so a
// changed option redoes exactly the steps that depend on it.
package recipe

import (
	"bytes"
	_ "embed" // the source lock is part of the program
	"encoding/json"
	"fmt"
	"regexp"
	"time"
)

//go:embed llama.lock.json
var lockJSON []byte

// Lock pins the llama.cpp source. Tree alone determines what is compiled; the other fields are
// places to download it from.
type Lock struct {
	Tag   string `json:"tag"`
	URL   string `json:"url"`
	Tree  string `json:"tree"`  // git tree hash, 40 hex digits
	Epoch int64  `json:"epoch"` // time of the release, seconds since 1970
	NPM   struct {
		Package string `json:"package"`
		Version string `json:"version"`
		Bundle  string `json:"bundle"` // path of the git bundle in the package
	} `json:"npm"`
}

var treeForm = regexp.MustCompile(`^[0-9a-f]{40}$`)

// SourceLock returns the embedded lock.
func SourceLock() (Lock, error) { return ParseLock(lockJSON) }

// ParseLock reads and checks a source lock; unknown fields are errors.
func ParseLock(b []byte) (Lock, error) {
	var l Lock
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return Lock{}, fmt.Errorf("source lock: %w", err)
	}
	if l.Tag == "" || l.URL == "" || l.Epoch <= 0 || !treeForm.MatchString(l.Tree) {
		return Lock{}, fmt.Errorf("source lock: tag, url, epoch and a tree of 40 hex digits are all needed; tree is %q", l.Tree)
	}
	return l, nil
}

// Time returns the release's time in UTC.
func (l Lock) Time() time.Time { return time.Unix(l.Epoch, 0).UTC() }
