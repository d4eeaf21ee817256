//go:build unix

package bundle_test

import (
	"os"
	"syscall"
	"testing"
)

// diskUse returns the bytes that a file occupies on its file system.
func diskUse(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no block count on this system")
	}
	return sys.Blocks * 512
}

// mkfifo creates a FIFO. Opening it for reading blocks until another process opens
// it for writing.
func mkfifo(path string) error { return syscall.Mkfifo(path, 0o600) }
