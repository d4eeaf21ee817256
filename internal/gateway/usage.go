package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

const (
	// usageVersion is the version of the file of used tokens.
	usageVersion = 1
	// maxUsageFile limits that file, in bytes.
	maxUsageFile = 1 << 20
)

// tokenUsage counts the tokens that each key has used on the current day of UTC.
// A goroutine writes the counts to a file after each change, so that they survive
// a restart; a program that is killed loses those of its last moment.
type tokenUsage struct {
	path string // "": no file
	log  *slog.Logger

	mu     sync.Mutex
	day    string
	tokens map[string]int64
	closed bool

	changed chan struct{} // closed by close
	written sync.WaitGroup
}

// usageFile is the content of the file.
type usageFile struct {
	Version int              `json:"version"`
	Day     string           `json:"day"`
	Tokens  map[string]int64 `json:"tokens"`
}

// openUsage reads the file. One that cannot be read is reported, and the counts
// begin at zero.
func openUsage(path string, log *slog.Logger) *tokenUsage {
	u := &tokenUsage{path: path, log: log, tokens: map[string]int64{}, changed: make(chan struct{}, 1)}
	if path == "" {
		return u
	}
	f, err := readUsage(path)
	switch {
	case err == nil:
		u.day, u.tokens = f.Day, f.Tokens
	case !errors.Is(err, fs.ErrNotExist):
		log.Warn("the file of used tokens cannot be read; tokens are counted from zero", "path", path, "cause", err.Error())
	}
	u.written.Go(func() {
		for range u.changed {
			if err := u.write(); err != nil {
				log.Warn("the file of used tokens cannot be written; a restart forgets them", "path", path, "cause", err.Error())
			}
		}
	})
	return u
}

func readUsage(path string) (usageFile, error) {
	var f usageFile
	raw, err := regfile.Read(path, maxUsageFile)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return f, err
	}
	if f.Version != usageVersion {
		return f, fmt.Errorf("its version is %d, not %d", f.Version, usageVersion)
	}
	for name, n := range f.Tokens {
		if n < 0 {
			return f, fmt.Errorf("%d tokens for %q", n, name)
		}
	}
	if f.Tokens == nil {
		f.Tokens = map[string]int64{}
	}
	return f, nil
}

// today forgets the counts of another day. The caller holds mu.
func (u *tokenUsage) today(now time.Time) {
	if day := now.UTC().Format(time.DateOnly); day != u.day {
		u.day, u.tokens = day, map[string]int64{}
	}
}

// used returns the tokens of a key on the day of now.
func (u *tokenUsage) used(key string, now time.Time) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.today(now)
	return u.tokens[key]
}

// add counts tokens of a key.
func (u *tokenUsage) add(key string, tokens int64, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.today(now)
	u.tokens[key] += tokens
	if u.path == "" || u.closed {
		return
	}
	select {
	case u.changed <- struct{}{}:
	default: // the write that is due includes this change
	}
}

// write replaces the file atomically.
func (u *tokenUsage) write() (err error) {
	u.mu.Lock()
	f := usageFile{Version: usageVersion, Day: u.day, Tokens: maps.Clone(u.tokens)}
	u.mu.Unlock()
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(u.path), filepath.Base(u.path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.Write(append(raw, '\n'))
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), u.path)
}

// close waits until all counts are written. Later ones are not.
func (u *tokenUsage) close() {
	u.mu.Lock()
	if !u.closed {
		u.closed = true
		close(u.changed)
	}
	u.mu.Unlock()
	u.written.Wait()
}
