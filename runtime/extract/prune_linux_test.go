package extract

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// newVersion packs a small bundle of that version.
func newVersion(t testing.TB, version string) testBundle {
	t.Helper()
	return packFiles(t, map[string][]byte{
		"libcore.so": data(9, 200_000), loaderName: []byte("#!/bin/true\n"), programName: []byte("#!/bin/true\n# " + version + "\n"),
	}, nil)
}

// age makes a bundle unused for that long.
func age(t *testing.T, inst *Installed, by time.Duration) {
	t.Helper()
	then := time.Now().Add(-by)
	if err := os.Chtimes(inst.Dir+".use", then, then); err != nil {
		t.Fatal(err)
	}
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// mustPrune prunes and checks the number of removed bundles.
func mustPrune(t *testing.T, o PruneOptions, want int) {
	t.Helper()
	removed, err := Prune(context.Background(), o)
	if err != nil || len(removed) != want {
		t.Errorf("removed %+v, %v; want %d", removed, err, want)
	}
}

func TestPruneRemovesUnused(t *testing.T) {
	cache := cacheDir(t)
	if list, err := List(cache); err != nil || len(list) > 0 {
		t.Errorf("a missing cache: %v, %v", list, err)
	}
	if exists(t, cache) {
		t.Error("List created a cache")
	}
	first, second := newVersion(t, "one"), newVersion(t, "two")
	a := mustExtract(t, first, Options{CacheDir: cache})
	b := mustExtract(t, second, Options{CacheDir: cache})
	age(t, a, 10*24*time.Hour)
	list, err := List(cache)
	if err != nil || len(list) != 2 || list[0].Dir != a.Dir || list[1].Dir != b.Dir {
		t.Fatalf("listed %+v, %v", list, err)
	}
	c := list[0]
	if c.Name != "llama-test" || c.Version != "v0" || len(c.Targets) != 2 || c.InUse || c.Bytes < 200_000 || time.Since(c.LastUsed) < 9*24*time.Hour {
		t.Errorf("listed %+v", c)
	}
	mustPrune(t, PruneOptions{CacheDir: cache, UnusedFor: 11 * 24 * time.Hour}, 0)
	mustPrune(t, PruneOptions{CacheDir: cache, UnusedFor: 9 * 24 * time.Hour, DryRun: true}, 1)
	mustPrune(t, PruneOptions{CacheDir: cache, Keep: []string{first.Digest(), second.Digest()}}, 0)
	mustPrune(t, PruneOptions{CacheDir: cache, Name: "other"}, 0)
	mustVerify(t, a)
	mustPrune(t, PruneOptions{CacheDir: cache, UnusedFor: 9 * 24 * time.Hour}, 1)
	for _, suffix := range []string{"", ".stamp", ".use", ".lock"} {
		if exists(t, a.Dir+suffix) {
			t.Errorf("%s still exists", a.Dir+suffix)
		}
	}
	mustBeFast(t, second, Options{CacheDir: cache})
	mustBeTidy(t, cache)
	// Extract makes a bundle recent, and installs a removed bundle again.
	age(t, b, 365*24*time.Hour)
	mustBeFast(t, second, Options{CacheDir: cache})
	mustPrune(t, PruneOptions{CacheDir: cache, UnusedFor: time.Hour}, 0)
	if second := mustExtract(t, first, Options{CacheDir: cache}); !second.Changed {
		t.Error("a removed bundle was not written again")
	}
	// The time of last use may be in the future, if the clock was set back. Pruning
	// everything includes such bundles.
	age(t, b, -2*time.Hour)
	mustPrune(t, PruneOptions{CacheDir: cache, UnusedFor: time.Hour}, 0)
	mustPrune(t, PruneOptions{CacheDir: cache, DryRun: true}, 2)
	// Without a time of last use, as older programs left it, the stamp's time is used.
	if err := os.Remove(b.Dir + ".use"); err != nil {
		t.Fatal(err)
	}
	mustPrune(t, PruneOptions{CacheDir: cache, UnusedFor: time.Hour}, 0)
	mustPrune(t, PruneOptions{CacheDir: cache}, 2)
	if left, err := os.ReadDir(filepath.Dir(b.Dir)); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A bundle stays while any process has a lease on it, also a child that inherited it.
func TestPruneKeepsLeased(t *testing.T) {
	b := newVersion(t, "one")
	torture.Rounds(t, func(t *testing.T) {
		cache := cacheDir(t)
		holder := startChild(t, "hold", b, cache)
		if got := holder.line(); got != "leased" {
			t.Fatalf("the holder printed %q", got)
		}
		inst := mustExtract(t, b, Options{CacheDir: cache})
		stays := func() {
			t.Helper()
			age(t, inst, 365*24*time.Hour)
			mustPrune(t, PruneOptions{CacheDir: cache}, 0)
			mustPrune(t, PruneOptions{CacheDir: cache, DryRun: true}, 0)
			mustVerify(t, inst)
			if list, err := List(cache); err != nil || len(list) != 1 || !list[0].InUse {
				t.Errorf("listed %+v, %v", list, err)
			}
		}
		stays()
		holder.stopServer()

		// A lease of this process, and a child that inherits it and keeps it longer.
		mine, err := Extract(context.Background(), b.Reader, Options{CacheDir: cache, Lease: true})
		if err != nil {
			t.Fatal(err)
		}
		stays()
		heir := startChild(t, "wait", b, cache, func(c *exec.Cmd) { c.ExtraFiles = []*os.File{mine.Lease.File()} })
		if got := heir.line(); got != "waiting" {
			t.Fatalf("the heir printed %q", got)
		}
		if err := errors.Join(mine.Lease.Release(), mine.Lease.Release()); err != nil {
			t.Error(err)
		}
		stays()
		heir.stopServer()
		mustPrune(t, PruneOptions{CacheDir: cache}, 1)
		if exists(t, inst.Dir) {
			t.Error("the bundle still exists")
		}
	})
}

// If Prune is killed at any step, the bundle is undamaged or gone, and the next Prune
// finishes the removal.
func TestPruneSurvivesKill(t *testing.T) {
	b := newVersion(t, "one")
	torture.Rounds(t, func(t *testing.T) {
		for _, step := range []string{"prune: locked", "prune: renamed", "prune: removed"} {
			cache := cacheDir(t)
			inst := mustExtract(t, b, Options{CacheDir: cache})
			startChild(t, "prune", b, cache, withEnv(stepEnv+"="+step)).killed()
			if exists(t, inst.Dir) {
				mustVerify(t, inst)
			}
			if _, err := Prune(context.Background(), PruneOptions{CacheDir: cache}); err != nil {
				t.Errorf("killed at %q: %v", step, err)
			}
			if left, err := os.ReadDir(filepath.Dir(inst.Dir)); err != nil || len(left) > 0 {
				t.Errorf("killed at %q: left: %v, %v", step, left, err)
			}
			mustExtract(t, b, Options{CacheDir: cache})
			mustBeTidy(t, cache)
		}
	})
}

// Prune removes the stage of a killed process even if its bundle stays, but not that of a
// running process.
func TestPruneRemovesAbandonedStages(t *testing.T) {
	b := newFatBundle(t)
	torture.Rounds(t, func(t *testing.T) {
		for name, prune := range map[string]PruneOptions{
			"kept": {Keep: []string{b.Digest()}}, "recent": {UnusedFor: time.Hour}, "of another name": {Name: "other"},
		} {
			o := Options{CacheDir: cacheDir(t), Targets: []gfx.Target{"gfx1100"}}
			prune.CacheDir = o.CacheDir
			inst := mustExtract(t, b, o)
			stages := func() int {
				found, err := filepath.Glob(inst.Dir + ".stage-*")
				if err != nil {
					t.Fatal(err)
				}
				return len(found)
			}
			startChild(t, "exit at step", b, o.CacheDir, withEnv(stepEnv+"=extracted")).killed()
			if stages() != 1 {
				t.Fatalf("%s: a killed process left %d stages", name, stages())
			}
			dry := prune
			dry.DryRun = true
			if mustPrune(t, dry, 0); stages() != 1 {
				t.Errorf("%s: a dry run removed the stage", name)
			}
			mustPrune(t, prune, 0)
			mustBeTidy(t, o.CacheDir)
			mustBeFast(t, b, o)

			living := startChild(t, "stop at step", b, o.CacheDir, withEnv(stepEnv+"=extracted"))
			living.waitStopped()
			if mustPrune(t, prune, 0); stages() != 1 {
				t.Errorf("%s: the stage of a running process was removed", name)
			}
			living.signal(syscall.SIGCONT)
			living.succeeded()
			mustBeTidy(t, o.CacheDir)
		}
	})
}

// Two calls at once remove each bundle exactly once.
func TestPruneTwiceAtOnce(t *testing.T) {
	first, second := newVersion(t, "one"), newVersion(t, "two")
	torture.Rounds(t, func(t *testing.T) {
		cache := cacheDir(t)
		store := filepath.Dir(mustExtract(t, first, Options{CacheDir: cache}).Dir)
		mustExtract(t, second, Options{CacheDir: cache})
		var once sync.Once
		mustPrune(t, PruneOptions{CacheDir: cache, trace: func(step string) {
			if step == "prune: locked" {
				once.Do(func() { mustPrune(t, PruneOptions{CacheDir: cache}, 1) })
			}
		}}, 1)
		if left, err := os.ReadDir(store); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
}

// A bundle that is installed again while its remains are being removed stays, with its
// stamp.
func TestPruneDuringInstall(t *testing.T) {
	gone := newVersion(t, "one")
	torture.Rounds(t, func(t *testing.T) {
		cache := cacheDir(t)
		inst := mustExtract(t, gone, Options{CacheDir: cache})
		startChild(t, "prune", gone, cache, withEnv(stepEnv+"=prune: removed")).killed()
		store, err := openStore(location{dir: cache})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = store.close() }()
		c := store.describe(gone.Digest())
		mustExtract(t, gone, Options{CacheDir: cache})
		o := PruneOptions{}
		o.setDefaults()
		if removed, err := store.pruneBundle(c, false, o); removed || err != nil {
			t.Errorf("removed: %v, %v", removed, err)
		}
		mustVerify(t, inst)
		for _, suffix := range []string{".stamp", ".use", ".lock"} {
			if !exists(t, inst.Dir+suffix) {
				t.Errorf("%s was removed", suffix)
			}
		}
		mustBeTidy(t, cache)
	})
}

// While Prune runs continuously, processes and goroutines install. A bundle with a lease
// is undamaged.
func TestPruneAmongInstalls(t *testing.T) {
	b := newVersion(t, "one")
	torture.Rounds(t, func(t *testing.T) {
		cache := cacheDir(t)
		stop := make(chan struct{})
		var pruner, users sync.WaitGroup
		pruner.Go(func() {
			for {
				if _, err := Prune(context.Background(), PruneOptions{CacheDir: cache}); err != nil {
					t.Error(err)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
		children := make([]*child, 4)
		for i := range children {
			children[i] = startChild(t, "plain", b, cache)
		}
		for range 4 {
			users.Go(func() {
				for range 5 {
					inst, err := Extract(context.Background(), b.Reader, Options{CacheDir: cache, Lease: true})
					if err != nil {
						t.Error(err)
						return
					}
					if err := bundle.Verify(context.Background(), inst.Dir, inst.Manifest); err != nil {
						t.Errorf("with a lease: %v", err)
					}
					if err := inst.Lease.Release(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		users.Wait()
		for _, c := range children {
			c.succeeded()
		}
		close(stop)
		pruner.Wait()
		mustExtract(t, b, Options{CacheDir: cache})
		mustBeTidy(t, cache)
	})
}

// An installation removes bundles of its name that were not used for long, and no others.
func TestInstallRemovesSuperseded(t *testing.T) {
	cache := cacheDir(t)
	old, recent, held := mustExtract(t, newVersion(t, "1"), Options{CacheDir: cache}), mustExtract(t, newVersion(t, "2"), Options{CacheDir: cache}), newVersion(t, "3")
	inUse, err := Extract(context.Background(), held.Reader, Options{CacheDir: cache, Lease: true})
	if err != nil {
		t.Fatal(err)
	}
	age(t, old, SupersededAge+time.Hour)
	age(t, recent, SupersededAge-time.Hour)
	age(t, inUse, SupersededAge+time.Hour)
	now := mustExtract(t, newVersion(t, "4"), Options{CacheDir: cache})
	for inst, want := range map[*Installed]bool{old: false, recent: true, inUse: true, now: true} {
		if exists(t, inst.Dir) != want {
			t.Errorf("%s is there: %v", inst.Dir, !want)
		}
	}
	if err := inUse.Lease.Release(); err != nil {
		t.Error(err)
	}
	mustBeTidy(t, cache)
}
