package regfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Output is a file that a person named and that a command writes. A regular file has
// its earlier content until Commit replaces it as a whole. Something else, such as
// /dev/stdout, is written to at once.
type Output struct {
	*os.File

	target string // that Commit replaces; empty: the file itself is written
	done   bool
}

// Create prepares to write a file. It reports at once what makes that impossible. A
// symbolic link is followed. An existing file keeps its permissions and its owner; a new
// one has perm, less the umask.
func Create(name string, perm fs.FileMode) (*Output, error) {
	info, err := os.Stat(name)
	switch {
	case name == "":
		return nil, &fs.PathError{Op: "write", Path: name, Err: syscall.ENOENT}
	case isStream(name): // even where it is a file at the moment: others write to it, too
		return openOutput(name, os.O_APPEND)
	case errors.Is(err, fs.ErrNotExist):
		return create(name, perm, nil)
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, &fs.PathError{Op: "write", Path: name, Err: syscall.EISDIR}
	}
	// A FIFO that nobody reads is an error, not a reason to wait.
	o, err := openOutput(name, syscall.O_NONBLOCK)
	if err != nil || !info.Mode().IsRegular() {
		return o, err
	}
	// It may be written to; the new file takes its place.
	if err := o.Close(); err != nil {
		return nil, err
	}
	target, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil, err
	}
	return create(target, info.Mode().Perm(), info)
}

func openOutput(name string, flag int) (*Output, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|flag, 0)
	if err != nil {
		return nil, err
	}
	return &Output{File: f}, nil
}

// isStream reports whether a name stands for an open file, such as /dev/stdout.
func isStream(name string) bool {
	return strings.HasPrefix(name, "/dev/") || strings.HasPrefix(name, "/proc/")
}

// create creates the file that takes the place of target, whose info is nil if it does
// not exist.
func create(target string, perm fs.FileMode, info fs.FileInfo) (*Output, error) {
	staged := filepath.Join(filepath.Dir(target), ".new-"+rand.Text())
	f, err := os.OpenFile(staged, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, err
	}
	o := &Output{File: f, target: target}
	if info != nil {
		if err := errors.Join(f.Chmod(perm), keepOwner(f, info)); err != nil {
			return nil, errors.Join(err, o.Close())
		}
	}
	return o, nil
}

// Commit ends the file. Whoever reads its name sees the earlier content or the new one,
// also after a power failure.
func (o *Output) Commit() error {
	o.done = true
	if o.target == "" {
		return o.File.Close()
	}
	err := o.Sync()
	if err = errors.Join(err, o.File.Close()); err == nil {
		err = os.Rename(o.Name(), o.target)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", o.target, err), os.Remove(o.Name()))
	}
	return syncDir(filepath.Dir(o.target))
}

// Close leaves the earlier content, unless Commit was called.
func (o *Output) Close() error {
	if o.done {
		return nil
	}
	o.done = true
	err := o.File.Close()
	if o.target != "" {
		err = errors.Join(err, os.Remove(o.Name()))
	}
	return err
}

// Replace writes a file as a whole, see [Create].
func Replace(name string, content []byte, perm fs.FileMode) error {
	o, err := Create(name, perm)
	if err != nil {
		return err
	}
	if _, err := o.Write(content); err != nil {
		return errors.Join(err, o.Close())
	}
	return o.Commit()
}

// syncDir makes a rename last.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return nil //nolint:nilerr // a directory that may be written to and not be read
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil // the file system syncs no directories
	}
	return errors.Join(err, f.Close())
}
