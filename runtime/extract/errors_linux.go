package extract

import (
	"errors"
	"fmt"
	"io/fs"

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

// spaceError turns a full file system or quota into a SpaceError.
func (s *store) spaceError(err error, need, inodes int64) error {
	switch {
	case errors.Is(err, unix.EDQUOT):
		return &SpaceError{Dir: s.dir, What: "quota", Need: need, Have: -1, Err: err}
	case errors.Is(err, unix.ENOSPC):
		free, freeInodes := s.free()
		if freeInodes >= 0 && freeInodes < inodes && free >= need {
			return &SpaceError{Dir: s.dir, What: "inodes", Need: inodes, Have: freeInodes, Err: err}
		}
		return &SpaceError{Dir: s.dir, What: "bytes", Need: need, Have: max(free, 0), Err: err}
	}
	return err
}

// checkSpace compares what will be written with what is free.
func (s *store) checkSpace(need, inodes int64) error {
	free, freeInodes := s.free()
	if free >= 0 && free < need {
		return &SpaceError{Dir: s.dir, What: "bytes", Need: need, Have: free}
	}
	if freeInodes >= 0 && freeInodes < inodes {
		return &SpaceError{Dir: s.dir, What: "inodes", Need: inodes, Have: freeInodes}
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
	size := st.Frsize
	if size <= 0 {
		size = st.Bsize
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
