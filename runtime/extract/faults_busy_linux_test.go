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

	"forge.lthn.ai/core/go-rocm/testing/torture"
)

func TestFault15_TextBusy(t *testing.T) {
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

// Another process has the program open for writing during a repair. Extract waits for
// it, for a limited time.
func TestFault15_WaitsForWriter(t *testing.T) {
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
		var once sync.Once
		done, closed := make(chan error, 1), make(chan error, 1)
		go func() {
			waiting := o
			waiting.trace = func(step string) {
				if step == "waiting for writer" {
					once.Do(func() { closed <- writer.Close() })
				}
			}
			_, err := Extract(context.Background(), b.Reader, waiting)
			done <- err
		}()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Errorf("with a writer that closes the file: %v", err)
		}
		startServer(t, inst).stopServer()
	})
}

// TestFault16_NoDescriptors lets descriptors run out at every point of an
// install, the check of an installed bundle, and a repair.
func TestFault16_NoDescriptors(t *testing.T) {
	b := newBundle(t, false)
	torture.Rounds(t, func(t *testing.T) {
		failed, whole := 0, 0
		try := func(left int, cache string) {
			t.Helper()
			c := startChild(t, "few descriptors", b, cache, withEnv(stepEnv+"="+strconv.Itoa(left)))
			out, err := c.wait()
			if strings.Contains(out, "damaged") {
				t.Errorf("with %d descriptors the shortage was reported as damage: %s", left, out)
			}
			if err == nil {
				whole++
			} else if failed++; !strings.Contains(out, ErrTooManyFiles.Error()) || !strings.Contains(out, "ulimit -n") {
				t.Errorf("with %d descriptors the error does not name a remedy: %s", left, out)
			}
			mustBeTidy(t, cache)
		}
		limits := []int{1, 4, 12, 14, 15, 16, 17, 18, 40}
		if testing.Short() {
			limits = []int{1, 14, 16, 40} // each takes two processes and two installs
		}
		for _, left := range limits {
			cache := cacheDir(t)
			try(left, cache)
			inst := mustExtract(t, b, Options{CacheDir: cache})
			// A shortage must not be reported as damage of an installed bundle.
			remove(t, inst.Dir+".stamp")
			remove(t, filepath.Join(inst.Dir, "libcore.so"))
			try(left, cache)
			mustExtract(t, b, Options{CacheDir: cache})
		}
		if failed == 0 || whole == 0 {
			t.Errorf("%d runs failed and %d did not: descriptors did not run out in between", failed, whole)
		}
	})
}
