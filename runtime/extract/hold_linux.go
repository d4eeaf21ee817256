package extract

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

func useName(digest string) string { return digest + ".use" }

// touchAfter is how old a record of use may grow before it is renewed: times
// are for a policy of days, and a start need not write to the disk.
const touchAfter = time.Hour

// hold takes the shared lock that keeps a bundle from being pruned, and records
// that the bundle is used now. It is taken before the folder is looked at, so
// that what is found there stays. Where the file system gives no lock, nothing
// is held, and Prune removes nothing either.
func (s *store) hold(ctx context.Context, digest string) (*Lease, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		l, err := s.tryFlock(useName(digest), unix.LOCK_SH)
		switch {
		case errors.Is(err, errSwept):
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
		select { // it is being removed
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// touch makes a file's time now unless it is recent.
func (s *store) touch(name string) {
	st, err := s.statNoFollow(name)
	if now := time.Now(); err == nil && now.Sub(time.Unix(st.Mtim.Unix())).Abs() > touchAfter {
		_ = s.root.Chtimes(name, now, now) // the next start tries again
	}
}

// lastUsed is when somebody asked for the bundle last. Older programs left no
// record of use; when they sealed the bundle must do.
func (s *store) lastUsed(digest string) time.Time {
	var last time.Time
	for _, name := range []string{useName(digest), sealName(digest), digest} {
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

// eachStore opens the stores that are there in all places.
func eachStore(cacheDir string, do func(*store) error) error {
	places, err := findPlaces(cacheDir, os.Getenv, passwdHome)
	if err != nil {
		return err
	}
	for _, p := range places {
		if _, err := os.Lstat(filepath.Join(p.dir, bundlesName)); err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
				continue
			}
			return placeError(p, err)
		}
		s, err := openStore(p)
		if err != nil {
			return explain(err)
		}
		if err := errors.Join(do(s), s.close()); err != nil {
			return explain(err)
		}
	}
	return nil
}
