//go:build unix

package download

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// checkSpace reports whether the disk has room for a file of size bytes, with what
// is in it already.
func checkSpace(f *os.File, size int64) error {
	var disk unix.Statfs_t
	var file unix.Stat_t
	if err := errors.Join(unix.Fstatfs(int(f.Fd()), &disk), unix.Fstat(int(f.Fd()), &file)); err != nil {
		return nil //nolint:nilerr // writing tells
	}
	free := uint64(disk.Bavail) * uint64(disk.Bsize) //nolint:gosec,unconvert // both differ between systems
	need := uint64(max(size-file.Blocks*512, 0))
	if need+min(spaceForOthers, need) > free {
		return fmt.Errorf("%w: %s needs %d MiB more, %d MiB are free", ErrSpace, f.Name(), need>>20, free>>20)
	}
	return nil
}
