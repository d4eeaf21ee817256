//go:build unix

package selftest

import (
	"io/fs"
	"os"
	"syscall"
)

// ownFile reports whether a file belongs to this user or to root.
func ownFile(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
}
