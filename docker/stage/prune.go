package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// Prune removes the results that no build has requested since a time, and the unfinished
// results of builds that were killed before it. It returns their names. Stages that another
// process is building are kept.
func (c *Cache) Prune(ctx context.Context, since time.Time) ([]string, error) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, fmt.Errorf("prune the stage cache: %w", err)
	}
	var removed []string
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		if !Owns(filepath.Join(c.dir, e.Name())) {
			continue
		}
		final := filepath.Join(c.dir, strings.TrimSuffix(e.Name(), unfinished))
		gone, err := prune(filepath.Join(c.dir, e.Name()), final, since)
		if err != nil {
			return removed, fmt.Errorf("prune the stage cache: %w", err)
		}
		if gone {
			removed = append(removed, e.Name())
		}
	}
	return removed, nil
}

// prune removes one directory while it holds the lock of the result final. It keeps the
// lock's file, since another process may wait for it.
func prune(dir, final string, since time.Time) (bool, error) {
	lock := flock.New(final + ".lock")
	if ok, err := lock.TryLock(); err != nil || !ok {
		return false, err
	}
	defer lock.Unlock() //nolint:errcheck // the lock is released with the process
	used, err := lastUse(dir)
	if err != nil || !used.Before(since) {
		return false, err
	}
	// An interrupted removal leaves no partial result.
	if work := final + unfinished; dir != work {
		if err := errors.Join(os.RemoveAll(work), os.Rename(dir, work)); err != nil {
			return false, err
		}
		dir = work
	}
	return true, os.RemoveAll(dir)
}

// unfinishedName matches the names of unfinished results: a name and a key, as path
// returns them.
var unfinishedName = regexp.MustCompile(`^.+-[0-9a-f]{` + strconv.Itoa(keyDigits) + `}` + regexp.QuoteMeta(unfinished) + `$`)

// Owns reports whether a directory is a result of a cache, or an unfinished one. Other
// directories belong to somebody else.
func Owns(dir string) bool { return isResult(dir) || unfinishedName.MatchString(filepath.Base(dir)) }

// isResult reports whether a directory is a finished result.
func isResult(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, recordName))
	return err == nil
}

// lastUse returns the time when a result was last requested, or the modification time of an
// unfinished result.
func lastUse(dir string) (time.Time, error) {
	info, err := os.Stat(filepath.Join(dir, recordName))
	if errors.Is(err, fs.ErrNotExist) {
		info, err = os.Stat(dir)
	}
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}
