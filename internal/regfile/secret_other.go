//go:build !linux

package regfile

import "os"

// isMountedSecret is false: mounts are not told apart on this platform.
func isMountedSecret(*os.File) bool { return false }
