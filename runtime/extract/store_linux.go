package extract

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/internal/fsync"
)

// bundlesName is the directory inside a cache directory that only this package uses.
const bundlesName = "bundles"

// store is the open directory with installed bundles and their stamps, locks and
// stages. All access is relative to the descriptor, so that a renamed or planted
// path component cannot redirect it.
type store struct {
	dir      string // for messages and for Installed.Dir
	root     *os.Root
	handle   *os.File // of the same directory, for the *at calls
	readOnly bool     // nothing can be created, but an installed bundle may be used
}

// openStore opens the store of a location, and creates it if possible.
func openStore(p location) (*store, error) {
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
				return nil, locationError(p, err)
			}
			readOnly = true
		}
		if err := checkDir(step.dir, step.own); err != nil {
			return nil, fmt.Errorf("%w (from %s)", err, p.from)
		}
	}
	dir := filepath.Join(p.dir, bundlesName)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, locationError(p, err)
	}
	handle, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(locationError(p, err), root.Close())
	}
	s := &store{dir: dir, root: root, handle: handle, readOnly: readOnly}
	if err := s.recheck(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w (from %s)", err, p.from), s.close())
	}
	return s, nil
}

func (s *store) close() error { return errors.Join(s.handle.Close(), s.root.Close()) }

func (s *store) fd() int { return int(s.handle.Fd()) }

// checkDir rejects a symbolic link, another user's directory, and a directory that
// others may write to. With own, it sets the mode to 0700.
func checkDir(dir string, own bool) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("cache directory: %w", err)
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		return fmt.Errorf("%w: %s is a symbolic link; remove it, or use the path of its target", ErrUnsafe, dir)
	}
	if !st.IsDir() {
		return fmt.Errorf("%w: %s is not a directory; move it away", ErrUnsafe, dir)
	}
	var sys unix.Stat_t
	if err := unix.Lstat(dir, &sys); err != nil {
		return fmt.Errorf("cache directory: %w", &fs.PathError{Op: "lstat", Path: dir, Err: err})
	}
	return checkStat(dir, &sys, own)
}

func checkStat(dir string, sys *unix.Stat_t, own bool) error {
	uid := uint32(os.Geteuid()) //nolint:gosec // a user id
	if sys.Uid != uid && (sys.Uid != 0 || sys.Mode&0o022 != 0) {
		return fmt.Errorf("%w: %s belongs to user %d, this program runs as %d; remove it or set %s to a directory of your own", ErrUnsafe, dir, sys.Uid, uid, CacheEnv)
	}
	// In a directory with the sticky bit, others can create names but not change
	// ours. That is enough for the parent of the store.
	if sys.Mode&0o022 != 0 && (own || sys.Mode&unix.S_ISVTX == 0) {
		return fmt.Errorf("%w: others may write to %s (mode %04o), so its content cannot be trusted; remove it, or run: chmod 700 %s", ErrUnsafe, dir, sys.Mode&0o7777, dir)
	}
	if own && sys.Uid == uid && sys.Mode&0o077 != 0 {
		if err := os.Chmod(dir, 0o700); err != nil && !errors.Is(err, unix.EROFS) { //nolint:gosec // a directory needs its x bit
			return fmt.Errorf("cache directory: %w", err)
		}
	}
	return nil
}

// recheck checks the open directory: it may have been replaced between Lstat and
// open.
func (s *store) recheck() error {
	var sys unix.Stat_t
	if err := unix.Fstat(s.fd(), &sys); err != nil {
		return fmt.Errorf("cache directory: %w", &fs.PathError{Op: "fstat", Path: s.dir, Err: err})
	}
	return checkStat(s.dir, &sys, true)
}

// wasRemoved reports whether the directory was removed or replaced while it was open.
func (s *store) wasRemoved() bool {
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

func (s *store) renameNoReplace(from, to string) error {
	err := unix.Renameat2(s.fd(), from, s.fd(), to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// The file system does not support the flag. Renaming a directory replaces
		// at most an empty directory, so nothing is lost.
		err = unix.Renameat(s.fd(), from, s.fd(), to)
		if errors.Is(err, unix.ENOTEMPTY) {
			err = unix.EEXIST
		}
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: filepath.Join(s.dir, from), New: filepath.Join(s.dir, to), Err: err}
	}
	return nil
}

// replaceFile replaces a file of the store: it writes and syncs a new one, and renames
// it.
func (s *store) replaceFile(name string, b []byte) error {
	tmp := name + ".new"
	if err := s.root.RemoveAll(tmp); err != nil {
		return err
	}
	f, err := s.openNoFollow(tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.renameOver(tmp, name)
	}
	if err != nil {
		_ = s.root.Remove(tmp) // the caller reports the first error
		return err
	}
	return s.handle.Sync()
}

// renameOver renames a file, and replaces even a directory.
func (s *store) renameOver(from, to string) error {
	if st, err := s.statNoFollow(to); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := s.root.RemoveAll(to); err != nil {
			return err
		}
	}
	return s.root.Rename(from, to)
}

// syncDirs syncs a directory and all directories below it. It calls synced for each.
func syncDirs(root *os.Root, synced func(path string)) error {
	return fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if err := fsync.Dir(root, p); err != nil {
			return err
		}
		synced(p)
		return nil
	})
}

// forEachStore opens the existing stores of all locations.
func forEachStore(cacheDir string, do func(*store) error) error {
	locations, err := findLocations(cacheDir)
	if err != nil {
		return err
	}
	for _, p := range locations {
		if _, err := os.Lstat(filepath.Join(p.dir, bundlesName)); err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
				continue
			}
			return locationError(p, err)
		}
		s, err := openStore(p)
		if err != nil {
			return addRemedy(err)
		}
		if err := errors.Join(do(s), s.close()); err != nil {
			return addRemedy(err)
		}
	}
	return nil
}
