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

// diskFile is a File as the zip package asks for it.
type diskFile File

// Path is the file's place in the module.
func (f diskFile) Path() string { return f.Name }

// Lstat tells size and kind.
func (f diskFile) Lstat() (os.FileInfo, error) { return os.Lstat(f.From) }

// Open reads it.
func (f diskFile) Open() (io.ReadCloser, error) { return os.Open(f.From) }

// maxZip is what the go command takes of an archive, in bytes: 500 MiB.
const maxZip = zip.MaxZipFile

// packZip writes the archive of at most so many bytes.
func packZip(ctx context.Context, name string, v Version, files []zip.File, most int64) error {
	return stage(name, func(f *os.File) error {
		if err := zip.Create(ctxio.Writer(ctx, f), module.Version{Path: v.Path, Version: v.Version}, files); err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if info.Size() > most {
			return fmt.Errorf("%w: the archive has %d bytes, the go command takes %d: leave out GPU targets", ErrOptions, info.Size(), most)
		}
		return nil
	})
}

// stage has a file made beside its place and renames it there.
func stage(name string, fill func(*os.File) error) error {
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

func replace(ctx context.Context, name string, r io.Reader) error {
	return stage(name, func(f *os.File) error {
		_, err := io.Copy(f, ctxio.Reader(ctx, r))
		return err
	})
}

// makeFolders makes dir and those above it up to top, for a web server to read
// whatever the umask.
func makeFolders(top, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if dir != top {
		if err := makeFolders(top, filepath.Dir(dir)); err != nil {
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

// has says whether a file is at its place already. Another one there is
// ErrVersionConflict.
func has(ctx context.Context, from, to string) (bool, error) {
	had, err := digest(ctx, to)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	have, err := digest(ctx, from)
	if err != nil {
		return false, err
	}
	if !bytes.Equal(had, have) {
		return false, fmt.Errorf("%w: %s: raise the version", ErrVersionConflict, filepath.Base(to))
	}
	return true, nil
}

// bring puts a file to a place where it stays for good: as a link where the file
// system can, else as a copy.
func bring(ctx context.Context, from, to string) error {
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
