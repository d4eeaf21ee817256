package extract

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// The tests of this file and its neighbours inject the faults 1 to 17 of
// docs/faults.md.

// steps are the points of a first install where a process is killed.
func steps() []string {
	return []string{"locked", "staged", "extracted", "synced", "renamed", "folder synced", "sealed"}
}

func TestFault01ManyProcesses(t *testing.T) {
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		cache := cacheDir(t)
		children := make([]*child, 6)
		for i := range children {
			children[i] = startChild(t, "plain", b, cache)
		}
		var wg sync.WaitGroup
		freshHere := make([]bool, 6)
		for i := range freshHere {
			wg.Go(func() {
				inst, err := Extract(context.Background(), b.Reader, Options{CacheDir: cache})
				if err != nil {
					t.Error(err)
					return
				}
				freshHere[i] = inst.Changed
			})
		}
		wg.Wait()
		fresh := 0
		for _, f := range freshHere {
			if f {
				fresh++
			}
		}
		for _, c := range children {
			if c.succeeded() {
				fresh++
			}
		}
		if fresh != 1 {
			t.Errorf("%d processes and goroutines wrote the bundle, want 1", fresh)
		}
		mustBeWarm(t, b, Options{CacheDir: cache})
		mustExtract(t, b, Options{CacheDir: cache})
		mustBeTidy(t, cache)
	})
}

func TestFault02KilledInExtraction(t *testing.T) {
	b := newBundle(t, false)
	kill := func(t *testing.T, part, step string) {
		cache := cacheDir(t)
		startChild(t, part, b, cache, withEnv(stepEnv+"="+step)).killed()
		mustExtract(t, b, Options{CacheDir: cache})
		mustBeTidy(t, cache)
		mustBeWarm(t, b, Options{CacheDir: cache})
	}
	torture.Rounds(t, func(t *testing.T) {
		kill(t, "die while writing", "")
		for _, s := range steps() {
			kill(t, "die at step", s)
		}
	})
}

// TestFault02KilledInRepair kills where an installed bundle is put right: the
// old files must be there, or the new ones, and never halves.
func TestFault02KilledInRepair(t *testing.T) {
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		for _, s := range []string{"locked", "staged", "extracted", "synced", "replaced", "sealed"} {
			cache := cacheDir(t)
			inst := mustExtract(t, b, Options{CacheDir: cache})
			flip(t, filepath.Join(inst.Dir, "libcore.so.1"), 77)
			remove(t, filepath.Join(inst.Dir, programName))
			startChild(t, "die at step", b, cache, withEnv(stepEnv+"="+s)).killed()
			mustExtract(t, b, Options{CacheDir: cache})
			mustBeTidy(t, cache)
			mustBeWarm(t, b, Options{CacheDir: cache})
		}
	})
}

// TestFault02LockOfTheDead: a process that dies frees the lock; one that only
// stops keeps it, and a waiter's context still ends the wait.
func TestFault02LockOfTheDead(t *testing.T) {
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		cache := cacheDir(t)
		holder := startChild(t, "stop at step", b, cache, withEnv(stepEnv+"=locked"))
		holder.awaitStop()
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if _, err := Extract(ctx, b.Reader, Options{CacheDir: cache}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for a held lock gave %v", err)
		}
		waiter := startChild(t, "plain", b, cache)
		holder.signal(syscall.SIGKILL)
		holder.killed()
		if !waiter.succeeded() {
			t.Error("the waiter wrote nothing")
		}
		mustBeTidy(t, cache)
	})
}

func TestFault07FlippedByte(t *testing.T) {
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		o := Options{CacheDir: cacheDir(t)}
		inst := mustExtract(t, b, o)
		for _, f := range inst.Manifest.Files {
			if f.Size == 0 {
				continue
			}
			for _, at := range []int64{0, f.Size / 2, f.Size - 1} {
				flip(t, filepath.Join(inst.Dir, f.Path), at)
				if again := mustExtract(t, b, o); !again.Changed {
					t.Errorf("a flipped byte at %d of %s was not seen", at, f.Path)
				}
			}
		}
		mustBeWarm(t, b, o)
		mustBeTidy(t, o.CacheDir)
	})
}

func TestFault08Truncated(t *testing.T) {
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		o := Options{CacheDir: cacheDir(t)}
		inst := mustExtract(t, b, o)
		seal := inst.Dir + ".seal"
		for _, path := range []string{"manifest.json", "libcore.so", "libholes.so", programName, "rocblas/library/a_gfx1100.co"} {
			path = filepath.Join(inst.Dir, path)
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, size := range []int64{0, st.Size() / 2, st.Size() - 1} {
				truncate(t, path, size)
				if again := mustExtract(t, b, o); !again.Changed {
					t.Errorf("%s cut to %d bytes was not seen", path, size)
				}
			}
		}
		// A torn seal costs a look at the content, not a new install.
		for _, size := range []int64{0, 10, 200} {
			truncate(t, seal, size)
			if again := mustExtract(t, b, o); again.Changed {
				t.Errorf("files were written because the seal was cut to %d bytes", size)
			}
			mustBeWarm(t, b, o)
		}
		mustBeTidy(t, o.CacheDir)
	})
}

func TestFault09RemovedWhileRunning(t *testing.T) {
	b := newBundle(t, true)
	torture.Rounds(t, func(t *testing.T) {
		o := Options{CacheDir: cacheDir(t)}
		inst := mustExtract(t, b, o)
		server := startServer(t, inst)
		for _, path := range []string{loaderName, programName, "libcore.so", "manifest.json", "rocblas/library"} {
			if err := os.RemoveAll(filepath.Join(inst.Dir, path)); err != nil {
				t.Fatal(err)
			}
		}
		if again := mustExtract(t, b, o); !again.Changed || again.Dir != inst.Dir {
			t.Errorf("repair gave %+v", again)
		}
		second := startServer(t, inst) // no ETXTBSY, no missing file
		server.stopServer()
		second.stopServer()
		mustBeTidy(t, o.CacheDir)
		mustBeWarm(t, b, o)
	})
}

func TestFault10SweptAway(t *testing.T) {
	b := newBundle(t, true)
	torture.Rounds(t, func(t *testing.T) {
		o := Options{CacheDir: cacheDir(t)}
		inst := mustExtract(t, b, o)
		server := startServer(t, inst)
		for _, dir := range []string{inst.Dir, filepath.Dir(inst.Dir), o.CacheDir} {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if again := mustExtract(t, b, o); !again.Changed {
				t.Error("nothing was written into a swept cache")
			}
		}
		server.stopServer()
	})
}

// TestFault10SweptInExtraction removes the cache at every step of an install
// that runs, and while a second process waits for the lock.
func TestFault10SweptInExtraction(t *testing.T) {
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		for _, step := range steps() {
			cache := cacheDir(t)
			var once sync.Once
			inst, err := Extract(context.Background(), b.Reader, Options{CacheDir: cache, trace: func(s string) {
				if s == step {
					once.Do(func() { removeAll(t, cache) })
				}
			}})
			if err != nil {
				t.Errorf("swept at %q: %v", step, err)
				continue
			}
			if step != "sealed" { // then it was whole when Extract looked last
				mustVerify(t, inst)
			}
			mustExtract(t, b, Options{CacheDir: cache})
			mustBeTidy(t, cache)
		}
		cache := cacheDir(t)
		holder := startChild(t, "stop at step", b, cache, withEnv(stepEnv+"=staged"))
		holder.awaitStop()
		waiter := startChild(t, "plain", b, cache)
		removeAll(t, cache)
		if !waiter.succeeded() {
			t.Error("the waiter wrote nothing")
		}
		holder.signal(syscall.SIGCONT)
		holder.succeeded()
		mustBeTidy(t, cache)
		mustBeWarm(t, b, Options{CacheDir: cache})
	})
}
