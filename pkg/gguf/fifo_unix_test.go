//go:build unix

package gguf_test

import "syscall"

// mkfifo creates a FIFO, which blocks an open until another process opens it for writing.
func mkfifo(path string) error { return syscall.Mkfifo(path, 0o600) }
