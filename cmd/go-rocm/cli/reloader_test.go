package cli

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Clients that ask for a reload all the time get one after a pause, whatever their
// number; the first one gets it at once.
func TestClientReloadsArePaced(t *testing.T) {
	for _, c := range []struct{ takes, pause time.Duration }{{time.Millisecond, reloadPause}, {3 * time.Second, 3 * time.Second * reloadShare}} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var started []time.Time
			r := newReloader("", func() string { return "" }, func() {
				mu.Lock()
				started = append(started, time.Now())
				mu.Unlock()
				time.Sleep(c.takes)
			})
			stop := r.run(t.Context(), nil)
			start := time.Now()
			var clients sync.WaitGroup
			const rounds = 5
			for range 8 {
				clients.Go(func() {
					for range rounds {
						asked := time.Now()
						r.request(t.Context())
						mu.Lock()
						last := started[len(started)-1]
						mu.Unlock()
						if last.Before(asked) {
							t.Errorf("answered after the reload of %s, asked at %s", last.Sub(start), asked.Sub(start))
						}
					}
				})
			}
			clients.Wait()
			stop()
			if len(started) < rounds || len(started) > rounds+1 || !started[0].Equal(start) {
				t.Errorf("%d reloads for %d rounds, the first after %s", len(started), rounds, started[0].Sub(start))
			}
			for i := 1; i < len(started); i++ {
				if pause := started[i].Sub(started[i-1].Add(c.takes)); pause < c.pause {
					t.Errorf("reload %d began %s after the one before, want %s", i, pause, c.pause)
				}
			}
		})
	}
}

// A file that is being written is not read before it rests, and one that is removed
// for a moment is not read at all.
func TestWatchedFileIsReadWhenItRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var version, read atomic.Int32
		version.Store(1)
		name := func() string {
			if v := version.Load(); v != 0 {
				return strconv.Itoa(int(v))
			}
			return ""
		}
		reloads := 0
		stop := newReloader("1", name, func() { reloads++; read.Store(version.Load()) }).run(t.Context(), nil)
		time.Sleep(watchInterval / 2) // from here on the file changes between two checks
		for v := range int32(5) {
			version.Store(2 + v)
			time.Sleep(watchInterval)
		}
		time.Sleep(2 * watchInterval)
		version.Store(0)
		time.Sleep(3 * watchInterval)
		version.Store(6)
		time.Sleep(3 * watchInterval)
		stop()
		if reloads != 1 || read.Load() != 6 {
			t.Errorf("%d reloads, the last of version %d, want one of version 6", reloads, read.Load())
		}
	})
}

// Neither a changed file nor a client that leaves waits for the pause.
func TestWatchedFilesAreNotPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var version, reloads atomic.Int32
		version.Store(1)
		r := newReloader("1", func() string { return strconv.Itoa(int(version.Load())) }, func() { reloads.Add(1) })
		defer r.run(t.Context(), nil)()
		r.request(t.Context())
		version.Store(2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		r.request(ctx)
		start := time.Now()
		r.request(t.Context())
		if since := time.Since(start); reloads.Load() != 2 || since > 2*watchInterval {
			t.Errorf("%d reloads, the second after %s", reloads.Load(), since)
		}
	})
}
