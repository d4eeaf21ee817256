package modelstore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// lockKind says how a file is locked.
type lockKind int

const (
	shared lockKind = 1 << iota
	exclusive
	existing // the file or directory is not created
)

// flock is a lock on a file or directory, see flock(2). The kernel releases it when
// the process exits in any way.
type flock struct{ f *os.File }

// Close releases the lock.
func (l *flock) Close() error { return l.f.Close() }

// waitLock waits for a lock. It polls, since a context cannot interrupt flock(2).
func (s *Store) waitLock(ctx context.Context, name string, kind lockKind) (*flock, error) {
	const shortest, longest = 5 * time.Millisecond, 250 * time.Millisecond
	for wait := shortest; ; wait = min(2*wait, longest) {
		l, err := s.tryLock(name, kind)
		if err != nil || l != nil {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the lock of %s: %w", filepath.Join(s.dir, name), context.Cause(ctx))
		case <-time.After(wait):
		}
	}
}

// tryLock locks a file of the store if it is free, and returns nil if it is not,
// or if another file got its name at the same time.
func (s *Store) tryLock(name string, kind lockKind) (*flock, error) {
	flags := os.O_RDWR | os.O_CREATE
	if kind&existing != 0 {
		flags = os.O_RDONLY
	}
	f, err := s.root.OpenFile(name, flags, 0o640)
	if err != nil {
		return nil, fmt.Errorf("model store: %w", err)
	}
	locked, err := lockFD(f, kind&exclusive != 0)
	if err == nil && locked {
		var opened, named os.FileInfo
		if opened, err = f.Stat(); err == nil {
			named, err = s.root.Stat(name)
			locked = err == nil && os.SameFile(opened, named)
			if os.IsNotExist(err) {
				err = nil
			}
		}
	}
	if err != nil || !locked {
		_ = f.Close()
		return nil, err
	}
	return &flock{f}, nil
}
