//go:build !linux

package fakellama

import (
	"os"
	"syscall"
)

// die ends the process with the status that a shell shows for a signal; the
// signal itself is only sent on Linux.
func die(sig syscall.Signal) { os.Exit(128 + int(sig)) }
