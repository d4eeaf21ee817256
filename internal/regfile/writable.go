package regfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// CheckDir reports what keeps a program from creating files in dir.
func CheckDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return &fs.PathError{Op: "write to", Path: dir, Err: syscall.ENOTDIR}
	}
	return checkAccess(dir, true)
}

// CheckAppend reports what keeps a program from appending to a file, which need not
// exist.
func CheckAppend(name string) error {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return CheckDir(filepath.Dir(name))
	case err != nil:
		return err
	case info.Mode().IsRegular() || info.Mode()&fs.ModeCharDevice != 0:
		return checkAccess(name, false)
	}
	return check(name, info)
}

// CheckReplace reports what keeps a program from replacing a file of JSON, which need not
// exist. A file with other content is not the program's to replace.
func CheckReplace(name string) error {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := check(name, info); err != nil {
			return err
		}
		if err := checkJSON(name); err != nil {
			return err
		}
	}
	return CheckDir(filepath.Dir(name))
}

// checkJSON reports a file that begins unlike an object of JSON. A torn write may have
// left zeros.
func checkJSON(name string) error {
	f, err := Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 64)
	n, err := f.Read(head)
	if n == 0 {
		return nil // an empty file; a damaged one is replaced
	}
	if head = bytes.TrimLeft(head[:n], " \t\r\n\x00"); len(head) > 0 && head[0] != '{' {
		return fmt.Errorf("%s has other content, which would be lost", name)
	}
	return err
}
