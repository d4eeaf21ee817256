package extract

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// quotactl is the bare system call, which x/sys/unix does not wrap.
func quotactl[T any](t *testing.T, cmd int, device *byte, id int, arg *T) {
	t.Helper()
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL, uintptr(cmd),
		uintptr(unsafe.Pointer(device)), uintptr(id), uintptr(unsafe.Pointer(arg)), 0, 0) //nolint:gosec // the pointers live through the call
	if errno != 0 {
		t.Fatalf("quotactl: %v", errno)
	}
}
