//go:build !linux

package fsync

import (
	"os"
)

// StartWriteback does nothing: only Linux has such a system call.
func StartWriteback(*os.File) {}
