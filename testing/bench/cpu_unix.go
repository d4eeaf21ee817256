//go:build unix

package bench

import (
	"syscall"
	"time"
)

// cpuTime returns the processor time of this process. It depends less on the load of the
// machine than the wall-clock time.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
