package build

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// workMark is a file in each directory that a run creates in the cache outside of the
// stages. It contains the name of the directory: a copy or a renamed directory, and one
// that somebody else created, do not have their own name in it.
const workMark = ".go-rocm-work"

// errForeignDir reports a directory that this program did not create.
var errForeignDir = errors.New("go-rocm did not create this directory: move it away, or set GOROCM_CACHE to another directory")

// tempWork creates a directory in the cache, with a name that begins with kind and "-".
func (s *Session) tempWork(kind string) (string, error) {
	dir, err := os.MkdirTemp(s.Settings.Cache, kind+"-")
	if err != nil {
		return "", err
	}
	return dir, markWork(dir)
}

// ensureWork creates the directory dir, unless a run created it before.
func ensureWork(dir string) error {
	switch err := os.Mkdir(dir, 0o700); {
	case err == nil:
		return markWork(dir)
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	if !isWork(dir) {
		return fmt.Errorf("%s: %w", dir, errForeignDir)
	}
	return nil
}

// removeWork removes the directory dir if a run created it. It may be missing.
func removeWork(dir string) error {
	if !exists(dir) {
		return nil
	}
	if !isWork(dir) {
		return fmt.Errorf("%s: %w", dir, errForeignDir)
	}
	return os.RemoveAll(dir)
}

func markWork(dir string) error {
	return os.WriteFile(filepath.Join(dir, workMark), []byte(filepath.Base(dir)), 0o600)
}

// isWork reports whether dir is a directory that a run created. An empty directory may
// be one that was killed before it wrote the mark; removing it loses nothing.
func isWork(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() {
		return false
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) == 0 {
		return true
	}
	mark, err := os.ReadFile(filepath.Join(dir, workMark))
	return err == nil && string(mark) == filepath.Base(dir)
}
