package fakellama

import (
	"os"
	"syscall"
	"unsafe"
)

// die ends the process by a signal that the Go runtime would otherwise turn
// into a trace and exit status 2.
func die(sig syscall.Signal) {
	var act [4]uint64 // struct sigaction of the kernel: handler SIG_DFL, no flags, no mask
	// Neither call can fail in a way that matters: the process exits just below if it lives.
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0)
	_ = syscall.Kill(os.Getpid(), sig)
	select {} // until the signal arrives
}
