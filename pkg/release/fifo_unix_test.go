//go:build unix

package release_test

import "syscall"

// mkfifo creates a named pipe: opening it waits for a writer.
func mkfifo(path string) error { return syscall.Mkfifo(path, 0o600) }
