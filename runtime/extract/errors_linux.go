package extract

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// errSwept says that the cache was removed while it was in use; the work is
// begun again.
var errSwept = errors.New("cache folder was removed meanwhile")

// placeError explains why a folder cannot be made or opened.
func placeError(p place, err error) error {
	switch {
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: %s (from %s) is on a read-only file system; set %s to a folder that can be written: %w", ErrReadOnly, p.dir, p.from, CacheEnv, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: no permission for %s (from %s); set %s to a folder of your own: %w", ErrReadOnly, p.dir, p.from, CacheEnv, err)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%w: a part of %s (from %s) is not a folder: %w", ErrUnsafe, p.dir, p.from, err)
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%w: %s (from %s) leads through a symbolic link: %w", ErrUnsafe, p.dir, p.from, err)
	}
	return fmt.Errorf("cache folder %s (from %s): %w", p.dir, p.from, explain(err))
}

// explain gives system errors that have a remedy their sentinel.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EMFILE):
		return fmt.Errorf("%w: this process has used up its descriptors; raise its limit (ulimit -n) or close files: %w", ErrTooManyFiles, err)
	case errors.Is(err, unix.ENFILE):
		return fmt.Errorf("%w: the system has used up its descriptors (fs.file-max): %w", ErrTooManyFiles, err)
	case errors.Is(err, unix.EIO):
		return fmt.Errorf("%w: look at the kernel log (dmesg) and set %s to a folder on another disk: %w", ErrDisk, CacheEnv, err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: set %s to a folder that can be written: %w", ErrReadOnly, CacheEnv, err)
	}
	return err
}

// full reports an error of a file system or a quota that is used up.
func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// spaceError turns a full file system or quota at dir into a SpaceError, unless
// it is one. need and inodes are what the work takes in all.
func spaceError(dir string, err error, need, inodes int64) error {
	var said *SpaceError
	switch {
	case !full(err), errors.As(err, &said):
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

// checkSpace compares what will be written with what is free.
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

// free returns the bytes and inodes that this user may still take, -1 where
// the file system does not tell: some make inodes as they need them.
func (s *store) free() (bytes, inodes int64) {
	var st unix.Statfs_t
	if unix.Fstatfs(s.fd(), &st) != nil {
		return -1, -1
	}
	return freeOf(&st)
}

// freeAt is free for a folder that may not be there yet: then its nearest parent
// counts.
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

// checkExec refuses a file system that runs no programs. The flag is the
// mount's, so a remount shows at once.
func (s *store) checkExec() error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(s.fd(), &st); err != nil {
		return fmt.Errorf("cache folder: %w", &fs.PathError{Op: "statfs", Path: s.dir, Err: err})
	}
	if st.Flags&unix.ST_NOEXEC != 0 {
		return fmt.Errorf("%w: %s; set %s to a folder on a file system that may run programs", ErrNoExec, s.dir, CacheEnv)
	}
	return nil
}
