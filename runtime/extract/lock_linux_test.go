package extract

import (
	"errors"
	"os"
	"sync"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// A lock whose file is removed while a process waits for it, as Prune does, is not
// acquired.
func TestFault10_RemovedLockFile(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		s, err := openStore(location{cacheDir(t), "test"})
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
					if !s.isFile(l.f, lockName(name)) {
						t.Error("the lock is on a removed file")
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
