package extract

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lock is an flock(2) on a file beside the bundle. The kernel drops it when
// its holder dies, however that happens; the file itself stays.
//
// Some network and user-space file systems know no flock. There the rename
// alone keeps installs apart, and held is false: whoever does not hold the
// lock must not sweep what others may be writing.
type lock struct {
	f    *os.File
	held bool
}

// acquire waits for the lock of a bundle. It polls, since a blocked flock
// cannot be interrupted by a context.
func (s *store) acquire(ctx context.Context, digest string, log *slog.Logger) (*lock, error) {
	const shortest, longest, tell = 2 * time.Millisecond, 50 * time.Millisecond, time.Second
	wait, waited := shortest, time.Duration(0)
	for {
		l, err := s.tryLock(digest)
		if err != nil || l != nil {
			return l, err
		}
		if waited < tell && waited+wait >= tell {
			log.Info("waiting for another process that installs the bundle", "lock", lockName(digest))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the bundle's lock: %w", context.Cause(ctx))
		case <-time.After(wait):
		}
		waited += wait
		wait = min(2*wait, longest)
	}
}

// tryLock takes the lock if it is free; it returns nil if somebody has it.
func (s *store) tryLock(digest string) (*lock, error) {
	return s.tryFlock(lockName(digest), unix.LOCK_EX)
}

// tryFlock takes a lock of that kind, LOCK_EX or LOCK_SH, on a file of the
// store, if it is free; it returns nil if somebody has it.
func (s *store) tryFlock(name string, kind int) (*lock, error) {
	f, err := s.openNoFollow(name, unix.O_RDWR|unix.O_CREAT)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EISDIR) {
		// Planted: only we write here, so whatever it is, it goes.
		if rerr := s.root.RemoveAll(name); rerr != nil {
			return nil, rerr
		}
		f, err = s.openNoFollow(name, unix.O_RDWR|unix.O_CREAT)
	}
	if err != nil {
		return nil, err
	}
	err = flock(f, kind)
	if err == nil && !s.same(f, name) {
		// The name leads to another file by now: the lock is worth nothing.
		err = unix.EWOULDBLOCK
	}
	if err == nil {
		return &lock{f, true}, nil
	}
	if errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) {
		return &lock{f, false}, nil
	}
	cerr := f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		if s.gone() {
			return nil, errSwept
		}
		return nil, cerr
	}
	return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
}

func flock(f *os.File, kind int) error {
	for {
		err := unix.Flock(int(f.Fd()), kind|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// same reports whether the open file is the one that the name leads to.
func (s *store) same(f *os.File, name string) bool {
	var open unix.Stat_t
	if unix.Fstat(int(f.Fd()), &open) != nil {
		return false
	}
	named, err := s.statNoFollow(name)
	return err == nil && open.Ino == named.Ino && open.Dev == named.Dev
}

// release frees the lock by closing its file.
func (l *lock) release() {
	_ = l.f.Close() // nothing was written
}

func lockName(digest string) string { return digest + ".lock" }
