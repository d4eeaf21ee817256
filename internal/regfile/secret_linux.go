package regfile

import (
	"os"
	"syscall"
)

// From include/uapi/linux/magic.h and include/linux/statfs.h.
const (
	tmpfsMagic = 0x01021994
	ramfsMagic = 0x858458f6
	readOnly   = 0x0001
)

// isMountedSecret reports whether a file is on a read-only mount, or is root's on a
// mount in memory.
func isMountedSecret(f *os.File) bool {
	var fs syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &fs); err != nil {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	// The fields have 32 bits on some architectures, and the values fit.
	return ok && mountedSecret(uint32(fs.Type), uint32(fs.Flags), owner.Uid) //nolint:gosec // see above
}

// mountedSecret is isMountedSecret for a type and flags of statfs(2).
func mountedSecret(fsType, flags, owner uint32) bool {
	inMemory := fsType == tmpfsMagic || fsType == ramfsMagic
	return flags&readOnly != 0 || inMemory && owner == 0
}
