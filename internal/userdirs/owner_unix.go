//go:build unix

package userdirs

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// checkWritable reports whether the effective user can create files in dir.
func checkWritable(dir string) error {
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return &fs.PathError{Op: "write to", Path: dir, Err: err}
	}
	return nil
}

// ownedByOther reports whether dir, or its nearest existing ancestor, belongs to a
// user other than euid, and to which. A directory of root's belongs to everybody:
// services and containers have such homes, and permissions decide there.
func ownedByOther(dir string, euid int) (owner int, other bool) {
	for {
		info, err := os.Stat(dir)
		if err == nil {
			st, ok := info.Sys().(*syscall.Stat_t)
			if !ok {
				return 0, false
			}
			return int(st.Uid), int(st.Uid) != euid && st.Uid != 0
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return 0, false
		}
		dir = parent
	}
}
