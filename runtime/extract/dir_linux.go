package extract

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// bundlesName is the folder inside a cache folder that is ours alone.
const bundlesName = "bundles"

// store is the open folder that holds installed bundles, their seals, locks
// and stages. Everything in it is reached through the descriptor, so that a
// renamed or planted path component cannot lead elsewhere.
type store struct {
	dir      string // for messages and for Installed.Dir
	root     *os.Root
	handle   *os.File // of the same folder, for the *at calls
	readOnly bool     // nothing could be made; what is there may still do
}

// openStore opens, and where it can makes, the store of a place.
func openStore(p place) (*store, error) {
	readOnly := false
	for _, step := range []struct {
		dir  string
		make func() error
		own  bool
	}{
		{p.dir, func() error { return os.MkdirAll(p.dir, 0o700) }, false},
		{filepath.Join(p.dir, bundlesName), func() error { return os.Mkdir(filepath.Join(p.dir, bundlesName), 0o700) }, true},
	} {
		if err := step.make(); err != nil && !errors.Is(err, fs.ErrExist) {
			if _, serr := os.Lstat(step.dir); serr != nil {
				return nil, placeError(p, err)
			}
			readOnly = true
		}
		if err := checkFolder(step.dir, step.own); err != nil {
			return nil, fmt.Errorf("%w (from %s)", err, p.from)
		}
	}
	dir := filepath.Join(p.dir, bundlesName)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, placeError(p, err)
	}
	handle, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(placeError(p, err), root.Close())
	}
	s := &store{dir: dir, root: root, handle: handle, readOnly: readOnly}
	if err := s.recheck(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w (from %s)", err, p.from), s.close())
	}
	return s, nil
}

func (s *store) close() error { return errors.Join(s.handle.Close(), s.root.Close()) }

func (s *store) fd() int { return int(s.handle.Fd()) }

// checkFolder refuses a symbolic link, another owner's folder, and one that
// others may write to. A folder of our own making is tightened to 0700.
func checkFolder(dir string, own bool) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("cache folder: %w", err)
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		return fmt.Errorf("%w: %s is a symbolic link; remove it, or name the folder it leads to", ErrUnsafe, dir)
	}
	if !st.IsDir() {
		return fmt.Errorf("%w: %s is not a folder; move it away", ErrUnsafe, dir)
	}
	var sys unix.Stat_t
	if err := unix.Lstat(dir, &sys); err != nil {
		return fmt.Errorf("cache folder: %w", &fs.PathError{Op: "lstat", Path: dir, Err: err})
	}
	return checkStat(dir, &sys, own)
}

func checkStat(dir string, sys *unix.Stat_t, own bool) error {
	uid := uint32(os.Geteuid()) //nolint:gosec // a user id
	if sys.Uid != uid && (sys.Uid != 0 || sys.Mode&0o022 != 0) {
		return fmt.Errorf("%w: %s belongs to user %d, this program runs as %d; remove it or set %s to a folder of your own", ErrUnsafe, dir, sys.Uid, uid, CacheEnv)
	}
	// A folder with the sticky bit lets others add names and not touch ours;
	// that does for the parent of our own folder.
	if sys.Mode&0o022 != 0 && (own || sys.Mode&unix.S_ISVTX == 0) {
		return fmt.Errorf("%w: others may write to %s (mode %04o), so what is in it cannot be trusted; remove it, or run: chmod 700 %s", ErrUnsafe, dir, sys.Mode&0o7777, dir)
	}
	if own && sys.Uid == uid && sys.Mode&0o077 != 0 {
		if err := os.Chmod(dir, 0o700); err != nil && !errors.Is(err, unix.EROFS) { //nolint:gosec // a folder needs its x bit
			return fmt.Errorf("cache folder: %w", err)
		}
	}
	return nil
}

// recheck looks at the opened folder itself: what Lstat saw by name may have
// been exchanged before it was opened.
func (s *store) recheck() error {
	var sys unix.Stat_t
	if err := unix.Fstat(s.fd(), &sys); err != nil {
		return fmt.Errorf("cache folder: %w", &fs.PathError{Op: "fstat", Path: s.dir, Err: err})
	}
	return checkStat(s.dir, &sys, true)
}

// gone reports that the folder was removed or replaced under us.
func (s *store) gone() bool {
	var open, named unix.Stat_t
	if unix.Fstat(s.fd(), &open) != nil || unix.Lstat(s.dir, &named) != nil {
		return true
	}
	return open.Ino != named.Ino || open.Dev != named.Dev || open.Nlink == 0
}

// statNoFollow is lstat relative to the store.
func (s *store) statNoFollow(name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(s.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return st, &fs.PathError{Op: "lstat", Path: filepath.Join(s.dir, name), Err: err}
	}
	return st, nil
}

// openNoFollow opens a name of the store that must not be a symbolic link.
func (s *store) openNoFollow(name string, flags int) (*os.File, error) {
	for {
		fd, err := unix.Openat(s.fd(), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
		if err == nil {
			return os.NewFile(uintptr(fd), filepath.Join(s.dir, name)), nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, &fs.PathError{Op: "open", Path: filepath.Join(s.dir, name), Err: err}
		}
	}
}
