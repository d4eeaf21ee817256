package engine

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

// TarDirectory returns an [Input.Write] for the content of a directory. The entries do not
// depend on the machine: they are sorted, have the same owner and time, and modes that
// differ only for executable files.
func TarDirectory(dir string, owner int, modTime time.Time) func(*tar.Writer) error {
	return func(w *tar.Writer) error {
		return filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
			if err != nil || p == dir {
				return err
			}
			rel, err := filepath.Rel(dir, p)
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			h := &tar.Header{Name: rel, Mode: 0o644, Uid: owner, Gid: owner, ModTime: modTime, Typeflag: tar.TypeReg, Size: info.Size()}
			switch {
			case e.IsDir():
				h.Typeflag, h.Mode, h.Size = tar.TypeDir, 0o755, 0
			case info.Mode()&fs.ModeSymlink != 0:
				h.Typeflag, h.Size = tar.TypeSymlink, 0
				if h.Linkname, err = os.Readlink(p); err != nil {
					return err
				}
			case info.Mode()&0o100 != 0:
				h.Mode = 0o755
			}
			if err := w.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
				return err
			}
			f, err := os.Open(p) //nolint:gosec // the caller's own directory
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(w, f)
			return err
		})
	}
}

// ExtractFiles returns an [Output.Read] that writes files into dir, without the
// directories that they are in.
func ExtractFiles(dir string) func(*tar.Header, io.Reader) error {
	return func(h *tar.Header, r io.Reader) error {
		switch h.Typeflag {
		case tar.TypeDir:
			return nil
		case tar.TypeReg:
			return ExtractFile(filepath.Join(dir, path.Base(h.Name)), r, fs.FileMode(h.Mode&0o777))
		}
		return fmt.Errorf("unexpected entry of type %q", h.Typeflag)
	}
}

// ExtractFile writes r to the file name with exactly this mode, whatever the
// umask.
func ExtractFile(name string, r io.Reader, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Chmod(mode), f.Close())
}
