package gateway

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// isMountedSecret reports whether a file is on a read-only mount, or is root's on a
// mount in memory.
func isMountedSecret(f *os.File) bool {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && mountedSecret(fs.Type, fs.Flags, owner.Uid)
}

// mountedSecret is isMountedSecret for a type and flags of statfs(2).
func mountedSecret(fsType, flags int64, owner uint32) bool {
	inMemory := fsType == unix.TMPFS_MAGIC || fsType == unix.RAMFS_MAGIC
	return flags&unix.ST_RDONLY != 0 || inMemory && owner == 0
}
