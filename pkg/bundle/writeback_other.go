//go:build !linux

package bundle

import "os"

// startWriteback does nothing: only Linux has such a system call.
func startWriteback(*os.File) {}
