package modelstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/internal/fsync"
)

// How says how a file of another directory is in the store.
type How string

// The ways in which Adopt uses a file, in the order in which it tries them.
const (
	HowStored    How = "stored already"
	HowReflink   How = "cloned"      // a copy that shares the disk's blocks until one changes
	HowHardLink  How = "hard-linked" // the same file under another name
	HowReference How = "referenced"  // by its path; the model is gone when the file is
)

// Adopt makes the regular file at path a blob without a second copy of its bytes on
// the disk. It reads the whole file. An error that wraps ErrDigest reports a file
// whose digest is not the expected one; an empty one is not known. It returns the
// digest and the size of the file.
func (w *Writer) Adopt(ctx context.Context, path, expected string) (sha256 string, size int64, how How, err error) {
	if path, err = filepath.EvalSymlinks(path); err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", 0, "", err
	}
	if sha256, size, err = hashFile(ctx, path); err != nil {
		return "", 0, "", err
	}
	if expected != "" && sha256 != expected {
		return "", 0, "", fmt.Errorf("%s: %w: %s, want %s", path, ErrDigest, sha256, expected)
	}
	if w.s.Has(sha256, size) {
		return sha256, size, HowStored, nil
	}
	how, err = w.adopt(path, sha256)
	return sha256, size, how, err
}

func (w *Writer) adopt(path, sha256 string) (How, error) {
	s := w.s
	if how, err := HowReflink, w.reflink(path, sha256); err == nil || !errors.Is(err, errors.ErrUnsupported) {
		return how, err
	}
	// The other program may not have waited for the disk.
	if err := syncFile(path); err != nil {
		return "", err
	}
	blob := filepath.Join(blobsDir, blobPrefix+sha256)
	how := HowHardLink
	err := os.Link(path, filepath.Join(s.dir, blob))
	if err != nil && !errors.Is(err, fs.ErrExist) { // another disk, or another user's file
		how, err = HowReference, os.Symlink(path, filepath.Join(s.dir, blob))
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return how, fsync.Dir(s.root, blobsDir)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// reflink clones the file. The error wraps errors.ErrUnsupported where the file
// system cannot.
func (w *Writer) reflink(path, sha256 string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // it was only read
	out, err := os.CreateTemp(filepath.Join(w.s.dir, partialDir), "clone-*")
	if err != nil {
		return err
	}
	p := &Partial{File: out, StatePath: out.Name() + ".json", s: w.s, name: filepath.Join(partialDir, filepath.Base(out.Name()))}
	if err := cloneFile(out, in); err != nil {
		return errors.Join(fmt.Errorf("%w: %w", errors.ErrUnsupported, err), p.Discard())
	}
	return p.Commit(sha256)
}
