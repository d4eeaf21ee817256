package goproxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
)

// diskFile implements zip.File.
type diskFile File

// Path returns the file's path in the module.
func (f diskFile) Path() string { return f.Name }

// Lstat returns its size and type.
func (f diskFile) Lstat() (os.FileInfo, error) { return os.Lstat(f.From) }

// Open opens it for reading.
func (f diskFile) Open() (io.ReadCloser, error) { return os.Open(f.From) }

// maxZip is the size of an archive that the go command accepts, in bytes: 500 MiB.
const maxZip = zip.MaxZipFile

// packZip writes the archive, of at most limit bytes.
func packZip(ctx context.Context, name string, v Version, files []zip.File, limit int64) error {
	return replaceFile(name, func(f *os.File) error {
		if err := zip.Create(ctxio.Writer(ctx, f), module.Version{Path: v.Path, Version: v.Version}, files); err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if info.Size() > limit {
			return fmt.Errorf("%w: the archive has %d bytes, the go command accepts %d: build for fewer GPU targets", ErrOptions, info.Size(), limit)
		}
		return nil
	})
}

// replaceFile calls fill with a temporary file in the same directory and renames it
// to name.
func replaceFile(name string, fill func(*os.File) error) error {
	part := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".part")
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = errors.Join(f.Chmod(0o644), f.Sync())
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(part, name)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	return nil
}

// replace writes the contents of r to a file atomically.
func replace(ctx context.Context, name string, r io.Reader) error {
	return replaceFile(name, func(f *os.File) error {
		_, err := io.Copy(f, ctxio.Reader(ctx, r))
		return err
	})
}

// mkdirAll creates dir and its parents up to top so that a web server can read
// them, whatever the umask.
func mkdirAll(top, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if dir != top {
		if err := mkdirAll(top, filepath.Dir(dir)); err != nil {
			return err
		}
	} else if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// has reports whether the file from already is at to. It returns
// ErrVersionConflict if the file there has other contents.
func has(ctx context.Context, from, to string) (bool, error) {
	published, err := digest(ctx, to)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	wanted, err := digest(ctx, from)
	if err != nil {
		return false, err
	}
	if !bytes.Equal(published, wanted) {
		return false, fmt.Errorf("%w: %s: raise the version", ErrVersionConflict, filepath.Base(to))
	}
	return true, nil
}

// addImmutable links a file to its final path, or copies it where the file system
// does not support links. The file must never change afterwards.
func addImmutable(ctx context.Context, from, to string) error {
	there, err := has(ctx, from, to)
	if err != nil || there {
		return err
	}
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	return replace(ctx, to, in)
}

func digest(ctx context.Context, name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	_, err = io.Copy(h, ctxio.Reader(ctx, f))
	return h.Sum(nil), errors.Join(err, f.Close())
}
