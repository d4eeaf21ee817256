package bundle

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback tells the kernel to begin writing the file to the disk and
// does not wait: by the time it is synced, little is left to do. It is only a
// hint, so its error does not count.
func startWriteback(f *os.File) {
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}
