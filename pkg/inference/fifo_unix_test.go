//go:build unix

package inference_test

import "syscall"

// mkfifo makes what an open waits at until somebody writes to it.
func mkfifo(path string) error { return syscall.Mkfifo(path, 0o600) }
