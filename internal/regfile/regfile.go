// Package regfile opens and reads files that a person or an untrusted directory
// names. Opening a FIFO blocks until another process writes to it, a device or
// /proc file may be endless, and a sparse file of any size needs no disk space. The
// package opens regular files only, without blocking, and reads at most a given
// number of bytes.
//
// pkg/gguf does not use it, since it imports the standard library alone.
package regfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

var (
	// ErrNotRegular reports a directory, FIFO, socket or device.
	ErrNotRegular = errors.New("not a regular file")
	// ErrTooLarge reports a file with more bytes than the limit.
	ErrTooLarge = errors.New("file is too large")
	// ErrNotUTF8 reports text in another encoding.
	ErrNotUTF8 = errors.New("not UTF-8")
)

// Open opens a regular file for reading. It follows symbolic links.
func Open(name string) (*os.File, error) {
	return open(name, os.Stat, os.OpenFile)
}

// OpenIn opens a regular file below root for reading.
func OpenIn(root *os.Root, name string) (*os.File, error) {
	return open(name, root.Stat, root.OpenFile)
}

func open(name string, stat func(string) (fs.FileInfo, error), openFile func(string, int, fs.FileMode) (*os.File, error)) (*os.File, error) {
	// Opening a device may have side effects, so its type is checked first.
	info, err := stat(name)
	if err != nil {
		var failed *fs.PathError
		if errors.As(err, &failed) {
			failed.Op = "open" // what the caller asked for
		}
		return nil, err
	}
	if err := check(name, info); err != nil {
		return nil, err
	}
	// The file may have been replaced by a FIFO in the meantime.
	f, err := openFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil {
		err = check(name, info)
	}
	if err != nil {
		_ = f.Close() // it was only opened for reading
		return nil, err
	}
	return f, nil
}

func check(name string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return fmt.Errorf("%s is a %s: %w", name, Kind(info.Mode()), ErrNotRegular)
}

// Read returns the content of a regular file. The error wraps ErrTooLarge if it has
// more than limit bytes.
func Read(name string, limit int64) ([]byte, error) {
	f, err := Open(name)
	if err != nil {
		return nil, err
	}
	return read(f, name, limit)
}

// ReadIn returns the content of a regular file below root, like Read.
func ReadIn(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := OpenIn(root, name)
	if err != nil {
		return nil, err
	}
	return read(f, name, limit)
}

// ReadText is Read for a file that a person wrote with an editor, see Text.
func ReadText(name string, limit int64) ([]byte, error) {
	b, err := Read(name, limit)
	if err == nil {
		b, err = Text(b)
	}
	if errors.Is(err, ErrNotUTF8) {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return b, err
}

// Text returns the text of a file that an editor saved: without the byte order mark
// that editors of Windows put before UTF-8. The error wraps ErrNotUTF8 for text that
// begins with the mark of UTF-16 or UTF-32.
func Text(b []byte) ([]byte, error) {
	if bytes.HasPrefix(b, []byte("\xff\xfe")) || bytes.HasPrefix(b, []byte("\xfe\xff")) || bytes.HasPrefix(b, []byte("\x00\x00\xfe\xff")) {
		return nil, fmt.Errorf("%w: it begins with the byte order mark of UTF-16 or UTF-32; save it as UTF-8", ErrNotUTF8)
	}
	return bytes.TrimPrefix(b, []byte("\ufeff")), nil
}

func read(f *os.File, name string, limit int64) ([]byte, error) {
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes: %w", name, limit, ErrTooLarge)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Kind returns a name for the type of a file, such as "named pipe".
func Kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "symbolic link"
	case m.IsDir():
		return "directory"
	case m&fs.ModeNamedPipe != 0:
		return "named pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeDevice != 0:
		return "device"
	case m.IsRegular():
		return "regular file"
	}
	return "special file"
}
