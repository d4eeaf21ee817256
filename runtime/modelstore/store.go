// Package modelstore keeps models in a directory: their bytes by digest, and their
// names.
//
//	DIR/blobs/sha256-HEX     one file of a model; its content has this digest
//	DIR/snapshots/ID/NAME    links to the blobs of one model, with the names of its source
//	DIR/names/NAME.json      a record: where a model came from and what it consists of
//	DIR/partial/KEY          a file that is being downloaded, and KEY.json, how far it got
//	DIR/lock                 locked while something is added (shared) or removed (exclusive)
//
// A blob gets its name after its digest was computed and its bytes are on the disk,
// a record after all of its blobs. A process that is killed at any moment, and a
// power failure, therefore leave whole models and partial files, and nothing between.
//
// Several processes may use a directory at once. Whoever loads a model holds a
// [Lease] on its snapshot; [Store.Prune] removes no blob that a record names, that a
// lease holds, or while a [Writer] is open.
//
// The package downloads nothing.
package modelstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/internal/fsync"
	"forge.lthn.ai/core/go-rocm/internal/userdirs"
)

// EnvDir is the variable that names the directory of the store.
const EnvDir = userdirs.EnvModels

var (
	// ErrNotFound reports a name without a record.
	ErrNotFound = errors.New("no such model in the store")
	// ErrBusy reports that another process adds to the store.
	ErrBusy = errors.New("another process is adding a model")
	// ErrDigest reports bytes that do not have the digest that they should have.
	ErrDigest = errors.New("wrong SHA-256")
	// ErrRecord reports a record that cannot be used.
	ErrRecord = errors.New("damaged record")
)

const (
	blobsDir, snapshotsDir, namesDir, partialDir = "blobs", "snapshots", "names", "partial"
	lockFile                                     = "lock"
	blobPrefix                                   = "sha256-"
)

// Store is a directory of models.
type Store struct {
	dir  string
	root *os.Root
}

// Dir returns the directory that Open("") opens: $GOROCM_MODELS, else one in the
// data directory of a service or of the user. It need not exist.
func Dir() (string, error) {
	dirs, err := userdirs.Models()
	if err != nil {
		return "", err
	}
	return dirs[0].Path, nil
}

// Open opens the store in dir and creates it if necessary, readable for its owner
// and group. An empty dir is that of [Dir].
func Open(dir string) (*Store, error) {
	return open(dir, true)
}

// OpenExisting is Open for a reader: it creates nothing, and returns an error that
// wraps [os.ErrNotExist] if there is no store.
func OpenExisting(dir string) (*Store, error) {
	return open(dir, false)
}

func open(dir string, create bool) (*Store, error) {
	if dir == "" {
		var err error
		if dir, err = Dir(); err != nil {
			return nil, err
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	created := false
	if create {
		for _, sub := range []string{blobsDir, snapshotsDir, namesDir, partialDir} {
			if _, err := os.Stat(filepath.Join(dir, sub)); err == nil {
				continue
			}
			if err := os.MkdirAll(filepath.Join(dir, sub), 0o750); err != nil {
				return nil, fmt.Errorf("model store: %w; set %s to another directory", err, EnvDir)
			}
			created = true
		}
	} else if _, err := os.Stat(filepath.Join(dir, namesDir)); err != nil {
		return nil, fmt.Errorf("model store: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("model store: %w", err)
	}
	if created { // a record that survives a power failure needs the other directories
		if err := fsync.Dir(root, "."); err != nil {
			return nil, errors.Join(fmt.Errorf("model store: %w", err), root.Close())
		}
	}
	return &Store{dir: dir, root: root}, nil
}

// Close closes the store's directory.
func (s *Store) Close() error { return s.root.Close() }

// Dir returns the directory of the store, an absolute path.
func (s *Store) Dir() string { return s.dir }

// Has reports whether the store has the blob with this digest and size.
func (s *Store) Has(sha256 string, size int64) bool {
	info, err := os.Stat(s.BlobPath(sha256)) // follows the link of a referenced file
	return err == nil && info.Mode().IsRegular() && (size < 0 || info.Size() == size)
}

// BlobPath returns the path of the blob with this digest.
func (s *Store) BlobPath(sha256 string) string {
	return filepath.Join(s.dir, blobsDir, blobPrefix+sha256)
}

// Path returns the path of a file of a record, under the name that it has at its
// source.
func (s *Store) Path(r *Record, f File) string {
	return filepath.Join(s.dir, snapshotsDir, r.snapshot(), f.Name)
}

// writeFile writes a small file durably: under another name first.
func (s *Store) writeFile(dir, name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Join(s.dir, dir), ".new-*")
	if err != nil {
		return err
	}
	temporary := filepath.Join(dir, filepath.Base(f.Name()))
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(0o640)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.root.Rename(temporary, filepath.Join(dir, name))
	}
	if err != nil {
		_ = s.root.Remove(temporary)
		return err
	}
	return fsync.Dir(s.root, dir)
}
