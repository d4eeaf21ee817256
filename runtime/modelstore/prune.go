package modelstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/fsync"
)

// Lease keeps the files of a model from being pruned.
type Lease struct{ lock *flock }

// Release ends the lease.
func (l *Lease) Release() error { return l.lock.Close() }

// Acquire returns a lease on the files of a record, until it is released or the
// process exits. The error wraps ErrNotFound if they have been removed.
func (s *Store) Acquire(r *Record) (*Lease, error) {
	l, err := s.tryLock(filepath.Join(snapshotsDir, r.snapshot()), shared|existing)
	if errors.Is(err, fs.ErrNotExist) || err == nil && l == nil { // it is being removed
		return nil, fmt.Errorf("%w: %s; pull it again", ErrNotFound, r.Name)
	}
	if err != nil {
		return nil, err
	}
	return &Lease{l}, nil
}

// Remove removes the record with this name. Its files stay until [Store.Prune].
// The error wraps ErrNotFound if there is none.
func (s *Store) Remove(name string) error {
	err := s.root.Remove(filepath.Join(namesDir, recordFile(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	if err != nil {
		return err
	}
	return fsync.Dir(s.root, namesDir)
}

// Pruned is what [Store.Prune] removed.
type Pruned struct {
	Files int
	Bytes int64
}

// Prune removes the blobs that no record names and no lease holds, and partial
// files, if partial is set. Its error wraps ErrBusy while a Writer is open.
func (s *Store) Prune(partial bool) (out Pruned, err error) {
	l, err := s.tryLock(lockFile, exclusive)
	if err != nil {
		return out, err
	}
	if l == nil {
		return out, fmt.Errorf("model store: %w", ErrBusy)
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	// A record whose removal is not on the disk yet would come back without its blobs.
	if err := fsync.Dir(s.root, namesDir); err != nil {
		return out, err
	}
	records, err := s.List()
	if err != nil {
		return out, err // a record that cannot be read may name any blob
	}
	used := map[string]bool{}
	for i := range records {
		used[records[i].snapshot()] = true
	}
	blobs := map[string]bool{}
	for _, r := range records {
		for _, f := range r.Files {
			blobs[blobPrefix+f.SHA256] = true
		}
	}
	if err := s.pruneSnapshots(used, blobs); err != nil {
		return out, err
	}
	if err := s.pruneDir(blobsDir, &out, func(name string) bool { return strings.HasPrefix(name, blobPrefix) && !blobs[name] }); err != nil || !partial {
		return out, err
	}
	return out, s.pruneDir(partialDir, &out, func(string) bool { return true })
}

// pruneSnapshots removes the snapshots that are not used, and adds to blobs those
// of the ones that a lease holds.
func (s *Store) pruneSnapshots(used, blobs map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, snapshotsDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(snapshotsDir, e.Name())
		if used[e.Name()] {
			continue
		}
		l, err := s.tryLock(name, exclusive|existing)
		if err != nil {
			return err
		}
		if l == nil {
			links, err := os.ReadDir(filepath.Join(s.dir, name))
			if err != nil {
				return err
			}
			for _, link := range links {
				target, err := s.root.Readlink(filepath.Join(name, link.Name()))
				if err != nil {
					return err
				}
				blobs[filepath.Base(target)] = true
			}
			continue
		}
		if err := errors.Join(s.root.RemoveAll(name), l.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) pruneDir(dir string, out *Pruned, remove func(name string) bool) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, dir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !remove(e.Name()) {
			continue
		}
		info, err := e.Info()
		if err == nil {
			err = s.root.Remove(filepath.Join(dir, e.Name()))
		}
		if err != nil {
			return err
		}
		out.Files++
		out.Bytes += info.Size()
	}
	return nil
}
