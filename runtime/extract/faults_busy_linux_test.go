package extract

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

func TestFault15TextBusy(t *testing.T) {
	b := newBundle(t, true)
	torture.Rounds(t, func(t *testing.T) {
		// Other goroutines start programs all the time: each fork copies
		// whatever is open at that moment, until its exec.
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for ctx.Err() == nil {
					p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := p.Wait(); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for range 5 {
			startServer(t, mustExtract(t, b, Options{CacheDir: cacheDir(t)})).stopServer()
		}
		cancel()
		wg.Wait()
	})
}

// TestFault15Writer: somebody holds the program open for writing while the
// bundle is repaired; Extract waits for them, but not for ever.
func TestFault15Writer(t *testing.T) {
	b := newBundle(t, true)
	torture.Rounds(t, func(t *testing.T) {
		o := Options{CacheDir: cacheDir(t)}
		inst := mustExtract(t, b, o)
		writer, err := os.OpenFile(filepath.Join(inst.Dir, loaderName), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = writer.Close() }()
		flip(t, filepath.Join(inst.Dir, "libcore.so"), 5)
		if _, err := Extract(context.Background(), b.Reader, o); !errors.Is(err, ErrBusy) {
			t.Errorf("with a writer that stays: %v", err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := Extract(context.Background(), b.Reader, o)
			done <- err
		}()
		time.Sleep(30 * time.Millisecond)
		if err := writer.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Errorf("with a writer that goes: %v", err)
		}
		startServer(t, inst).stopServer()
	})
}

// TestFault16NoDescriptors lets descriptors run out at every point of an
// install, a warm start and a repair.
func TestFault16NoDescriptors(t *testing.T) {
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		failed, whole := 0, 0
		try := func(left int, cache string) {
			t.Helper()
			c := startChild(t, "few descriptors", b, cache, withEnv(stepEnv+"="+strconv.Itoa(left)))
			out, err := c.wait()
			if strings.Contains(out, "damaged") {
				t.Errorf("with %d descriptors the shortage passed for damage: %s", left, out)
			}
			if err == nil {
				whole++
			} else if failed++; !strings.Contains(out, ErrTooManyFiles.Error()) || !strings.Contains(out, "ulimit -n") {
				t.Errorf("with %d descriptors the error does not say what to do: %s", left, out)
			}
			mustBeTidy(t, cache)
		}
		for _, left := range []int{1, 4, 12, 14, 15, 16, 17, 18, 40} {
			cache := cacheDir(t)
			try(left, cache)
			inst := mustExtract(t, b, Options{CacheDir: cache})
			// A shortage must not pass for damage when the bundle is there.
			remove(t, inst.Dir+".seal")
			remove(t, filepath.Join(inst.Dir, "libcore.so"))
			try(left, cache)
			mustExtract(t, b, Options{CacheDir: cache})
		}
		if failed == 0 || whole == 0 {
			t.Errorf("%d runs failed and %d did not: descriptors did not run out on the way", failed, whole)
		}
	})
}

func TestTargetsOnDemand(t *testing.T) {
	b := newBundle(t, false)
	o := Options{CacheDir: cacheDir(t), Targets: []gfx.Target{}}
	for i, targets := range [][]gfx.Target{{}, {"gfx1101"}, {"gfx1100"}, nil} {
		o.Targets = targets
		inst := mustExtract(t, b, o)
		if len(inst.Targets) != min(i, 2) {
			t.Errorf("asked for %v: the folder has %v", targets, inst.Targets)
		}
		if inst.Changed != (i < 3) {
			t.Errorf("asked for %v: fresh is %v", targets, inst.Changed)
		}
		mustBeWarm(t, b, o)
		if got, err := OpenInstalled(inst.Dir); err != nil || !equalTargets(got.Targets, inst.Targets) {
			t.Errorf("opened: %+v, %v", got, err)
		}
	}
	o.Targets = []gfx.Target{"gfx90a"}
	if _, err := Extract(context.Background(), b.Reader, o); !errors.Is(err, ErrTarget) {
		t.Errorf("a target that the bundle lacks: %v", err)
	}
	// Damage in one target is repaired when another one is asked for: what is
	// there must be right.
	o.Targets = []gfx.Target{"gfx1100"}
	dir := mustExtract(t, b, o).Dir
	flip(t, filepath.Join(dir, "rocblas/library/a_gfx1101.co"), 9)
	mustExtract(t, b, o)
	mustBeTidy(t, o.CacheDir)
}

func equalTargets(a, b []gfx.Target) bool { return gfx.Join(a, ",") == gfx.Join(b, ",") }
