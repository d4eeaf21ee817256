package fsync

import (
	"os"

	"golang.org/x/sys/unix"
)

// StartWriteback makes the kernel start writing the file to the disk, and does not
// wait, so that little is left to write when the file is synced. It is only a hint,
// so errors are ignored.
func StartWriteback(f *os.File) {
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}
