//go:build !linux

package fakellama

import (
	"os"
	"syscall"
)

// deadly reports whether raise has an exit status for a signal.
func deadly(sig syscall.Signal) bool { return sig > 0 && sig < 32 }

// raise exits with the status that a shell reports for a signal; only Linux sends
// the signal itself.
func raise(sig syscall.Signal) { os.Exit(128 + int(sig)) }
