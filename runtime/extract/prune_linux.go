package extract

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// digests returns all digests with files in the store, and whether the bundle itself
// is there.
func (s *store) digests() (map[string]bool, error) {
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("read cache directory: %w", err)
	}
	out := make(map[string]bool)
	for _, e := range entries {
		digest, _, _ := strings.Cut(e.Name(), ".")
		if b, err := hex.DecodeString(digest); err != nil || len(b) != 32 || hex.EncodeToString(b) != digest {
			continue // a foreign file
		}
		out[digest] = out[digest] || e.Name() == digest && e.IsDir()
	}
	return out, nil
}

func (s *store) list() ([]Cached, error) {
	digests, err := s.digests()
	if err != nil {
		return nil, err
	}
	var out []Cached
	for d, there := range digests {
		if there {
			c := s.describe(d)
			c.InUse = s.inUse(d)
			out = append(out, c)
		}
	}
	slices.SortFunc(out, byUse)
	return out, nil
}

// describe describes a bundle. It needs no lock.
func (s *store) describe(digest string) Cached {
	c := Cached{Digest: digest, Dir: filepath.Join(s.dir, digest), LastUsed: s.lastUsed(digest)}
	if m, err := bundle.ReadManifest(c.Dir); err == nil {
		c.Name, c.Version = m.Name, m.Version
	}
	if rec, err := s.readStamp(digest); err == nil {
		c.Targets = rec.targets
	}
	c.Bytes = s.diskUse(digest)
	return c
}

// diskUse returns the size of all blocks below a directory, each inode once.
func (s *store) diskUse(name string) int64 {
	seen := make(map[uint64]bool)
	var sum int64
	_ = fs.WalkDir(s.root.FS(), name, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // an approximate figure; unreadable files are ignored
		}
		if st, err := s.statNoFollow(p); err == nil && !seen[st.Ino] {
			seen[st.Ino] = true
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum
}

// inUse reports whether a process has a lease on the bundle or is installing it. It
// creates no lock file.
func (s *store) inUse(digest string) bool {
	for _, name := range []string{lockName(digest), useName(digest)} {
		f, err := s.openNoFollow(name, unix.O_RDONLY)
		if err != nil {
			continue
		}
		err = flock(f, unix.LOCK_EX)
		_ = f.Close() // nothing was written
		if errors.Is(err, unix.EWOULDBLOCK) {
			return true
		}
	}
	return false
}

// prune removes the bundles that the options select. A failure does not keep it from
// removing the other bundles.
func (s *store) prune(ctx context.Context, o PruneOptions) ([]Cached, error) {
	digests, err := s.digests()
	if err != nil {
		return nil, err
	}
	var out []Cached
	var errs []error
	if !o.DryRun {
		errs = append(errs, s.sweep("", o.Log))
	}
	for d, there := range digests {
		if ctx.Err() != nil {
			break
		}
		if !s.matches(d, there, o) {
			continue
		}
		c := s.describe(d)
		var removed bool
		if o.DryRun {
			removed = there && !s.inUse(d)
		} else if removed, err = s.pruneBundle(c, there, o); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", c.Dir, err))
		}
		if removed {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, byUse)
	return out, errors.Join(errs...)
}

func byUse(a, b Cached) int {
	return cmp.Or(a.LastUsed.Compare(b.LastUsed), cmp.Compare(a.Digest, b.Digest))
}

// matches reports whether the options select the bundle, or the remains of one that
// was removed.
func (s *store) matches(digest string, there bool, o PruneOptions) bool {
	switch {
	case slices.Contains(o.Keep, digest):
		return false
	case !there:
		return o.Name == ""
	case o.UnusedFor > 0 && time.Since(s.lastUsed(digest)) < o.UnusedFor:
		return false
	case o.Name == "":
		return true
	}
	m, err := bundle.ReadManifest(filepath.Join(s.dir, digest))
	return err == nil && m.Name == o.Name
}

// pruneBundle removes one bundle or its remains. It acquires both locks: that of
// installations, and that of leases exclusively.
func (s *store) pruneBundle(c Cached, there bool, o PruneOptions) (removed bool, err error) {
	install, err := s.tryLock(c.Digest)
	if err != nil || install == nil {
		return false, err
	}
	defer install.release()
	_, err = s.statNoFollow(useName(c.Digest))
	unrecorded := errors.Is(err, fs.ErrNotExist)
	use, err := s.tryFlock(useName(c.Digest), unix.LOCK_EX)
	if err != nil || use == nil {
		return false, err
	}
	defer use.release()
	if unrecorded { // creating the file for the lock is no use of the bundle
		if err := s.root.Chtimes(useName(c.Digest), c.LastUsed, c.LastUsed); err != nil {
			return false, err
		}
	}
	if !install.held || !use.held {
		return false, nil // it may be in use
	}
	o.trace("prune: locked")
	// It may have been used, removed or installed in the meantime.
	st, err := s.statNoFollow(c.Digest)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	now := err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
	if now && (!there || !s.matches(c.Digest, there, o)) {
		return false, nil
	}
	if there = now; there {
		var id [8]byte
		_, _ = rand.Read(id[:]) // never fails
		// From here on it is an abandoned stage, which any process may remove.
		if err := s.root.Rename(c.Digest, stagePrefix(c.Digest)+hex.EncodeToString(id[:])); err != nil {
			return false, err
		}
		o.trace("prune: renamed")
		o.Log.Info("removing an unused bundle", "dir", c.Dir, "name", c.Name, "version", c.Version, "used", c.LastUsed)
	}
	return there, s.removeRemains(c.Digest, o)
}

// removeRemains removes the stages, the stamp and finally the locks of a removed
// bundle. A process that waits for a lock notices that its name refers to another
// file, and creates a new one.
func (s *store) removeRemains(digest string, o PruneOptions) error {
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), stagePrefix(digest)) {
			if err := s.root.RemoveAll(e.Name()); err != nil {
				return err
			}
		}
	}
	o.trace("prune: removed")
	var errs []error
	for _, name := range []string{stampName(digest) + ".new", stampName(digest), useName(digest), lockName(digest)} {
		if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
