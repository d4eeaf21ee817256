package extract

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// TestFoldersAreSynced: what an install or a repair named is made durable, in every
// folder and before the seal vouches for it.
func TestFoldersAreSynced(t *testing.T) {
	b := newBundle(t, false)
	folders := []string{".", "licenses", "licenses/rocblas", "rocblas", "rocblas/library"}
	o := Options{CacheDir: cacheDir(t)}
	check := func(what, before string) {
		t.Helper()
		var synced []string
		watched := o
		watched.synced = func(p string) { synced = append(synced, p) }
		watched.trace = func(s string) {
			if s == before && !slices.Equal(synced, folders) {
				t.Errorf("%s: synced %q at %q, want %q", what, synced, s, folders)
			}
		}
		if inst := mustExtract(t, b, watched); !inst.Changed {
			t.Errorf("%s: nothing was written", what)
		}
	}
	check("install", "renamed")
	dir := filepath.Join(o.CacheDir, bundlesName, b.Digest())
	remove(t, filepath.Join(dir, "rocblas/library/fallback.dat"))
	folders = append([]string{".", "rocblas", "rocblas/library"}, folders...) // its stage, then the bundle
	check("repair", "sealed")
}

// TestFault10LockOfNoName: who waits for a lock's file that is removed meanwhile, as
// the cache's sweeper or a prune does, has no lock by it.
func TestFault10LockOfNoName(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		s, err := openStore(place{cacheDir(t), "test"})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.close() }()
		const name = "some"
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 500 {
					l, err := s.tryLock(name)
					if err != nil {
						t.Error(err)
						return
					}
					if l == nil {
						continue
					}
					if !s.same(l.f, lockName(name)) {
						t.Error("the lock is of a file that has no name any more")
					}
					if err := s.root.Remove(lockName(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
						t.Error(err)
					}
					l.release()
				}
			})
		}
		wg.Wait()
	})
}
