//go:build !linux

package fakellama

import (
	"os"
	"syscall"
)

// deadly reports whether die has a status for a signal.
func deadly(sig syscall.Signal) bool { return sig > 0 && sig < 32 }

// die ends the process with the status that a shell shows for a signal; the
// signal itself is only sent on Linux.
func die(sig syscall.Signal) { os.Exit(128 + int(sig)) }
