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

// steps returns the steps of an installation at which tests kill a process.
func steps() []string {
	return []string{"locked", "staged", "extracted", "synced", "renamed", "cache synced", "stamped"}
}

func TestFault01_ManyProcesses(t *testing.T) {
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		cache := cacheDir(t)
		children := make([]*child, 6)
		for i := range children {
			children[i] = startChild(t, "plain", b, cache)
		}
		var wg sync.WaitGroup
		changedHere := make([]bool, 6)
		for i := range changedHere {
			wg.Go(func() {
				inst, err := Extract(context.Background(), b.Reader, Options{CacheDir: cache})
				if err != nil {
					t.Error(err)
					return
				}
				changedHere[i] = inst.Changed
			})
		}
		wg.Wait()
		changed := 0
		for _, f := range changedHere {
			if f {
				changed++
			}
		}
		for _, c := range children {
			if c.succeeded() {
				changed++
			}
		}
		if changed != 1 {
			t.Errorf("%d processes and goroutines wrote the bundle, want 1", changed)
		}
		mustBeFast(t, b, Options{CacheDir: cache})
		mustExtract(t, b, Options{CacheDir: cache})
		mustBeTidy(t, cache)
	})
}

func TestFault02_KilledDuringInstall(t *testing.T) {
	b := newBundle(t, false)
	kill := func(t *testing.T, part, step string) {
		cache := cacheDir(t)
		startChild(t, part, b, cache, withEnv(stepEnv+"="+step)).killed()
		mustExtract(t, b, Options{CacheDir: cache})
		mustBeTidy(t, cache)
		mustBeFast(t, b, Options{CacheDir: cache})
	}
	torture.Rounds(t, func(t *testing.T) {
		kill(t, "exit while writing", "")
		for _, s := range steps() {
			kill(t, "exit at step", s)
		}
	})
}

// A process that is killed during a repair leaves each file old or new, never partly
// written.
func TestFault02_KilledDuringRepair(t *testing.T) {
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		for _, s := range []string{"locked", "staged", "extracted", "synced", "replaced", "stamped"} {
			cache := cacheDir(t)
			inst := mustExtract(t, b, Options{CacheDir: cache})
			flip(t, filepath.Join(inst.Dir, "libcore.so.1"), 77)
			remove(t, filepath.Join(inst.Dir, programName))
			startChild(t, "exit at step", b, cache, withEnv(stepEnv+"="+s)).killed()
			mustExtract(t, b, Options{CacheDir: cache})
			mustBeTidy(t, cache)
			mustBeFast(t, b, Options{CacheDir: cache})
		}
	})
}

// The lock of a killed process is released. A stopped process keeps it, and a waiter's
// context still ends the wait.
func TestFault02_LockOfKilledProcess(t *testing.T) {
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		cache := cacheDir(t)
		holder := startChild(t, "stop at step", b, cache, withEnv(stepEnv+"=locked"))
		holder.waitStopped()
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if _, err := Extract(ctx, b.Reader, Options{CacheDir: cache}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for the lock returned %v", err)
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

func TestFault07_FlippedByte(t *testing.T) {
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
				if second := mustExtract(t, b, o); !second.Changed {
					t.Errorf("a flipped byte at %d of %s was not found", at, f.Path)
				}
			}
		}
		mustBeFast(t, b, o)
		mustBeTidy(t, o.CacheDir)
	})
}

func TestFault08_TruncatedFile(t *testing.T) {
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		o := Options{CacheDir: cacheDir(t)}
		inst := mustExtract(t, b, o)
		stampFile := inst.Dir + ".stamp"
		for _, path := range []string{"manifest.json", "libcore.so", "libholes.so", programName, "rocblas/library/a_gfx1100.co"} {
			path = filepath.Join(inst.Dir, path)
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, size := range []int64{0, st.Size() / 2, st.Size() - 1} {
				truncate(t, path, size)
				if second := mustExtract(t, b, o); !second.Changed {
					t.Errorf("%s truncated to %d bytes was not found", path, size)
				}
			}
		}
		// A truncated stamp requires verifying the content, but no new installation.
		for _, size := range []int64{0, 10, 200} {
			truncate(t, stampFile, size)
			if second := mustExtract(t, b, o); second.Changed {
				t.Errorf("files were written because the stamp was truncated to %d bytes", size)
			}
			mustBeFast(t, b, o)
		}
		mustBeTidy(t, o.CacheDir)
	})
}

func TestFault09_FilesRemovedWhileRunning(t *testing.T) {
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
		if second := mustExtract(t, b, o); !second.Changed || second.Dir != inst.Dir {
			t.Errorf("repair returned %+v", second)
		}
		second := startServer(t, inst) // no ETXTBSY, no missing file
		server.stopServer()
		second.stopServer()
		mustBeTidy(t, o.CacheDir)
		mustBeFast(t, b, o)
	})
}

func TestFault10_CacheRemoved(t *testing.T) {
	b := newBundle(t, true)
	torture.Rounds(t, func(t *testing.T) {
		o := Options{CacheDir: cacheDir(t)}
		inst := mustExtract(t, b, o)
		server := startServer(t, inst)
		for _, dir := range []string{inst.Dir, filepath.Dir(inst.Dir), o.CacheDir} {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if second := mustExtract(t, b, o); !second.Changed {
				t.Error("nothing was written to a removed cache")
			}
		}
		server.stopServer()
	})
}

// The test removes the cache at every step of an installation, and while a second
// process waits for the lock.
func TestFault10_CacheRemovedDuringInstall(t *testing.T) {
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
				t.Errorf("removed at %q: %v", step, err)
				continue
			}
			if step != "stamped" { // at the last step it was already verified
				mustVerify(t, inst)
			}
			mustExtract(t, b, Options{CacheDir: cache})
			mustBeTidy(t, cache)
		}
		cache := cacheDir(t)
		holder := startChild(t, "stop at step", b, cache, withEnv(stepEnv+"=staged"))
		holder.waitStopped()
		waiter := startChild(t, "plain", b, cache)
		removeAll(t, cache)
		if !waiter.succeeded() {
			t.Error("the waiter wrote nothing")
		}
		holder.signal(syscall.SIGCONT)
		holder.succeeded()
		mustBeTidy(t, cache)
		mustBeFast(t, b, Options{CacheDir: cache})
	})
}
