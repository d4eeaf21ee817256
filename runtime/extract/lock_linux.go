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

// lock is an flock(2) on a file beside the bundle. The kernel releases it when its
// holder exits in any way; the file remains.
//
// Some network and user-space file systems do not support flock. Then held is false:
// installations depend on the rename alone, and stages must not be removed, since
// other processes may be writing them.
type lock struct {
	f    *os.File
	held bool
}

// acquire waits for the lock of a bundle. It polls, since a context cannot interrupt
// a blocked flock.
func (s *store) acquire(ctx context.Context, digest string, log *slog.Logger) (*lock, error) {
	const shortest, longest, logAfter = 2 * time.Millisecond, 50 * time.Millisecond, time.Second
	wait, waited := shortest, time.Duration(0)
	for {
		l, err := s.tryLock(digest)
		if err != nil || l != nil {
			return l, err
		}
		if waited < logAfter && waited+wait >= logAfter {
			log.Info("waiting for another process that is installing the bundle", "lock", lockName(digest))
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

// tryLock acquires the lock if it is free. It returns nil if another process has it.
func (s *store) tryLock(digest string) (*lock, error) {
	return s.tryFlock(lockName(digest), unix.LOCK_EX)
}

// tryFlock acquires a lock of that kind, LOCK_EX or LOCK_SH, on a file of the store,
// if it is free. It returns nil if another process has it.
func (s *store) tryFlock(name string, kind int) (*lock, error) {
	f, err := s.openNoFollow(name, unix.O_RDWR|unix.O_CREAT)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EISDIR) {
		// Only this package writes in the store, so it was planted.
		if rerr := s.root.RemoveAll(name); rerr != nil {
			return nil, rerr
		}
		f, err = s.openNoFollow(name, unix.O_RDWR|unix.O_CREAT)
	}
	if err != nil {
		return nil, err
	}
	err = flock(f, kind)
	if err == nil && !s.isFile(f, name) {
		// The name now refers to another file, so the lock is useless.
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
		if s.wasRemoved() {
			return nil, errCacheRemoved
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

// isFile reports whether the name refers to the open file.
func (s *store) isFile(f *os.File, name string) bool {
	var open unix.Stat_t
	if unix.Fstat(int(f.Fd()), &open) != nil {
		return false
	}
	named, err := s.statNoFollow(name)
	return err == nil && open.Ino == named.Ino && open.Dev == named.Dev
}

// release releases the lock by closing its file.
func (l *lock) release() {
	_ = l.f.Close() // nothing was written
}

func lockName(digest string) string { return digest + ".lock" }

func useName(digest string) string { return digest + ".use" }

// touchAfter is the age at which the time of last use is updated. Prune works in days,
// so most starts need not write to the disk.
const touchAfter = time.Hour

// lease acquires the shared lock that protects a bundle from Prune, and updates the
// time of last use. It must be called before the bundle is examined, so that the
// bundle is not removed afterwards. On a file system without locks the lease is
// empty, and Prune removes nothing.
func (s *store) lease(ctx context.Context, digest string) (*Lease, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		l, err := s.tryFlock(useName(digest), unix.LOCK_SH)
		switch {
		case errors.Is(err, errCacheRemoved):
			return nil, err
		case err != nil:
			return &Lease{}, nil //nolint:nilerr // a full or read-only disk must not keep a bundle from being used
		case l != nil && !l.held:
			l.release()
			return &Lease{}, nil
		case l != nil:
			s.touch(useName(digest))
			h := new(Lease)
			h.f.Store(l.f)
			return h, nil
		}
		select { // Prune is removing the bundle
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// touch sets a file's time to now, unless it is recent.
func (s *store) touch(name string) {
	st, err := s.statNoFollow(name)
	if now := time.Now(); err == nil && now.Sub(time.Unix(st.Mtim.Unix())).Abs() > touchAfter {
		_ = s.root.Chtimes(name, now, now) // the next start tries again
	}
}

// lastUsed returns the time of the last Extract. If the file with that time is
// missing, the time of the stamp or the directory is used.
func (s *store) lastUsed(digest string) time.Time {
	var last time.Time
	for _, name := range []string{useName(digest), stampName(digest), digest} {
		if st, err := s.statNoFollow(name); err == nil {
			if t := time.Unix(st.Mtim.Unix()); t.After(last) {
				last = t
			}
			if name == useName(digest) {
				return last
			}
		}
	}
	return last
}
