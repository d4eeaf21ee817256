package fakellama

import (
	"os"
	"syscall"
	"unsafe"
)

// deadly reports whether a signal terminates a process by default (signal(7)).
// Real-time signals are not included.
func deadly(sig syscall.Signal) bool {
	switch sig {
	case syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGURG, syscall.SIGWINCH, // ignored
		syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU: // stop it
		return false
	}
	return sig > 0 && sig < 32
}

// raise terminates the process by a signal. The Go runtime would otherwise print a
// stack trace and exit with status 2.
func raise(sig syscall.Signal) {
	var act [4]uint64 // struct sigaction of the kernel: handler SIG_DFL, no flags, no mask
	// Neither call can fail: the signal is a deadly one, and SIGKILL cannot be handled.
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0)
	_ = syscall.Kill(os.Getpid(), sig)
	select {} // until the signal arrives
}
