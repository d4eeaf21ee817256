package extract

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/internal/userdirs"
)

// errCacheRemoved means that the cache was removed while it was in use. The
// installation starts again.
var errCacheRemoved = errors.New("cache directory was removed during the installation")

// locationError adds the cause and the remedy to an error of creating or opening a
// directory.
func locationError(p location, err error) error {
	switch {
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: %s (from %s) is on a read-only file system; set %s to a writable directory: %w", ErrReadOnly, p.dir, p.from, CacheEnv, err)
	case errors.Is(err, fs.ErrPermission):
		remedy := ""
		if owner, foreign := userdirs.OwnedByOther(p.dir); foreign {
			remedy = fmt.Sprintf("have user %d remove it, or ", owner)
		}
		return fmt.Errorf("%w: no permission for %s (from %s); %sset %s to a directory of your own: %w", ErrReadOnly, p.dir, p.from, remedy, CacheEnv, err)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%w: a part of %s (from %s) is not a directory: %w", ErrUnsafe, p.dir, p.from, err)
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%w: %s (from %s) contains a symbolic link: %w", ErrUnsafe, p.dir, p.from, err)
	}
	return fmt.Errorf("cache directory %s (from %s): %w", p.dir, p.from, addRemedy(err))
}

// addRemedy wraps system errors that have a remedy in their sentinel.
func addRemedy(err error) error {
	switch {
	case errors.Is(err, unix.EMFILE):
		return fmt.Errorf("%w: this process has no file descriptors left; raise its limit (ulimit -n) or close files: %w", ErrTooManyFiles, err)
	case errors.Is(err, unix.ENFILE):
		return fmt.Errorf("%w: the system has no file descriptors left (fs.file-max): %w", ErrTooManyFiles, err)
	case errors.Is(err, unix.EIO):
		return fmt.Errorf("%w: check the kernel log (dmesg) and set %s to a directory on another disk: %w", ErrDisk, CacheEnv, err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: set %s to a writable directory: %w", ErrReadOnly, CacheEnv, err)
	}
	return err
}

// isFull reports whether err means a full file system or an exhausted quota.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// spaceError converts the error of a full file system or quota at dir to a
// SpaceError, unless it is one. need and inodes are the total requirement.
func spaceError(dir string, err error, need, inodes int64) error {
	var converted *SpaceError
	switch {
	case !isFull(err), errors.As(err, &converted):
		return err
	case errors.Is(err, unix.EDQUOT):
		return &SpaceError{Dir: dir, Resource: "quota", Need: need, Have: -1, Err: err}
	}
	free, freeInodes := freeAt(dir)
	if freeInodes >= 0 && freeInodes < inodes && free >= need {
		return &SpaceError{Dir: dir, Resource: "inodes", Need: inodes, Have: freeInodes, Err: err}
	}
	return &SpaceError{Dir: dir, Resource: "bytes", Need: need, Have: max(free, 0), Err: err}
}

// checkSpace compares the required with the free space.
func (s *store) checkSpace(need, inodes int64) error {
	free, freeInodes := s.free()
	if free >= 0 && free < need {
		return &SpaceError{Dir: s.dir, Resource: "bytes", Need: need, Have: free}
	}
	if freeInodes >= 0 && freeInodes < inodes {
		return &SpaceError{Dir: s.dir, Resource: "inodes", Need: inodes, Have: freeInodes}
	}
	return nil
}

// free returns the bytes and inodes available to this user, -1 for unknown: some
// file systems create inodes as needed.
func (s *store) free() (bytes, inodes int64) {
	var st unix.Statfs_t
	if unix.Fstatfs(s.fd(), &st) != nil {
		return -1, -1
	}
	return freeOf(&st)
}

// freeAt is free for a directory that may not exist yet: then it uses the nearest
// existing parent.
func freeAt(dir string) (bytes, inodes int64) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		switch parent := filepath.Dir(dir); {
		case err == nil:
			return freeOf(&st)
		case !errors.Is(err, unix.ENOENT) || parent == dir:
			return -1, -1
		default:
			dir = parent
		}
	}
}

func freeOf(st *unix.Statfs_t) (bytes, inodes int64) {
	size := int64(st.Frsize) //nolint:unconvert // 32 bits wide where a word is
	if size <= 0 {
		size = int64(st.Bsize) //nolint:unconvert // as above
	}
	if st.Blocks == 0 {
		bytes = -1
	} else {
		bytes = int64(min(st.Bavail, 1<<40)) * size
	}
	if st.Files == 0 {
		return bytes, -1
	}
	return bytes, int64(min(st.Ffree, 1<<62))
}

// checkExec rejects a file system that is mounted noexec. The flag is that of the
// mount, so a remount takes effect at once.
func (s *store) checkExec() error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(s.fd(), &st); err != nil {
		return fmt.Errorf("cache directory: %w", &fs.PathError{Op: "statfs", Path: s.dir, Err: err})
	}
	if st.Flags&unix.ST_NOEXEC != 0 {
		return fmt.Errorf("%w: %s; set %s to a directory on a file system that allows running programs", ErrNoExec, s.dir, CacheEnv)
	}
	return nil
}
