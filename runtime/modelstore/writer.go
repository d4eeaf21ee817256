package modelstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/fsync"
)

// Writer adds models to a store. While it is open, nothing is pruned.
type Writer struct {
	s    *Store
	lock *flock
}

// Write returns a Writer. Several may be open at once, in any processes. It waits
// for a process that prunes.
func (s *Store) Write(ctx context.Context) (*Writer, error) {
	l, err := s.waitLock(ctx, lockFile, shared)
	if err != nil {
		return nil, err
	}
	return &Writer{s: s, lock: l}, nil
}

// Close allows the store to be pruned again.
func (w *Writer) Close() error { return w.lock.Close() }

// Partial is a file on its way into the store. One process at a time has it open;
// its content outlives the process.
type Partial struct {
	// File is open for reading and writing.
	File *os.File
	// StatePath is the path of a file for the downloader's own notes, which need not
	// exist. It is removed with the partial file.
	StatePath string

	s    *Store
	name string
}

// Partial opens the partial file of this key, a word of letters and digits, and
// waits while another process has it open. It returns nil if in the meantime, or
// before, the blob with the digest sha256 came; an empty sha256 is not known.
func (w *Writer) Partial(ctx context.Context, key, sha256 string, size int64) (*Partial, error) {
	if filepath.Base(key) != key {
		return nil, fmt.Errorf("model store: invalid key %q", key)
	}
	l, err := w.s.waitLock(ctx, filepath.Join(partialDir, key), exclusive)
	if err != nil {
		return nil, err
	}
	p := &Partial{File: l.f, StatePath: filepath.Join(w.s.dir, partialDir, key+".json"), s: w.s, name: filepath.Join(partialDir, key)}
	if sha256 != "" && w.s.Has(sha256, size) {
		return nil, p.Discard()
	}
	return p, nil
}

// Commit makes the file the blob with this digest, which the caller has computed
// from its bytes. It closes the file, also after an error.
func (p *Partial) Commit(sha256 string) error {
	err := p.File.Sync()
	if err == nil {
		err = p.s.root.Rename(p.name, filepath.Join(blobsDir, blobPrefix+sha256))
	}
	// Not before it is a blob: after a failed rename, or a kill between the two, its owner
	// could not open the partial file for writing again.
	if err == nil {
		err = p.File.Chmod(0o440)
	}
	if err == nil {
		err = fsync.Dir(p.s.root, blobsDir)
	}
	if err == nil {
		err = removeIfExists(p.StatePath)
	}
	return errors.Join(err, p.File.Close())
}

// Discard closes and removes the file.
func (p *Partial) Discard() error {
	return errors.Join(removeIfExists(p.StatePath), p.s.root.Remove(p.name), p.File.Close())
}

// Close closes the file and keeps it, to be continued later.
func (p *Partial) Close() error { return p.File.Close() }

func removeIfExists(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Put stores a record, whose blobs the store must have, and replaces an earlier one
// of the same name. It returns the record with the time at which it was added.
func (w *Writer) Put(r Record) (*Record, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	for _, f := range r.Files {
		if !w.s.Has(f.SHA256, f.Size) {
			return nil, fmt.Errorf("model store: the blob of %s is missing", f.Name)
		}
	}
	// A process that was killed, or that is running, may have added a blob without
	// its name being on the disk already.
	err := fsync.Dir(w.s.root, blobsDir)
	if err == nil {
		err = w.s.writeSnapshot(&r)
	}
	if err != nil {
		return nil, fmt.Errorf("model store: %w", err)
	}
	r.Added = time.Now().UTC().Truncate(time.Second)
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := w.s.writeFile(namesDir, recordFile(r.Name), append(raw, '\n')); err != nil {
		return nil, fmt.Errorf("model store: %w", err)
	}
	return &r, nil
}

// writeSnapshot creates the directory of links to the blobs of a record. It is made
// under another name, so that one that other processes see is whole. Links that a
// process that was killed while it pruned has removed are made again.
func (s *Store) writeSnapshot(r *Record) error {
	name := filepath.Join(snapshotsDir, r.snapshot())
	if _, err := s.root.Lstat(name); err == nil {
		return errors.Join(s.link(r, name), fsync.Dir(s.root, snapshotsDir))
	}
	temporary, err := os.MkdirTemp(filepath.Join(s.dir, snapshotsDir), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temporary) }() // gone, if it was renamed
	relative := filepath.Join(snapshotsDir, filepath.Base(temporary))
	if err := s.root.Chmod(relative, 0o750); err != nil {
		return err
	}
	if err := s.link(r, relative); err != nil {
		return err
	}
	if err := s.root.Rename(relative, name); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return fsync.Dir(s.root, snapshotsDir)
}

// link makes the links to the blobs of a record in a directory, as far as it has not
// got them.
func (s *Store) link(r *Record, dir string) error {
	for _, f := range r.Files {
		target := filepath.Join("..", "..", blobsDir, blobPrefix+f.SHA256)
		if err := s.root.Symlink(target, filepath.Join(dir, f.Name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return fsync.Dir(s.root, dir)
}
