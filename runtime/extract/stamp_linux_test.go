package extract

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Another call installs the bundle between the first check and the lock. Extract then
// accepts its stamp.
func TestWaiterUsesFinishedInstall(t *testing.T) {
	b := newBundle(t, false)
	o := Options{CacheDir: cacheDir(t)}
	var steps []string
	late := o
	late.trace = func(s string) {
		if steps = append(steps, s); s == "stale" {
			mustExtract(t, b, o)
		}
	}
	if inst := mustExtract(t, b, late); inst.Changed {
		t.Error("the bundle was written twice")
	}
	if want := []string{"stale", "locked"}; !slices.Equal(steps, want) {
		t.Errorf("steps %q, want %q", steps, want)
	}
}

// A stamp is written after the tick of the clock in which the bundle last changed, as the
// times on disk show.
func TestStampIsNewerThanFiles(t *testing.T) {
	b := newBundle(t, false)
	inst := mustExtract(t, b, Options{CacheDir: cacheDir(t)})
	s, err := openStore(location{filepath.Dir(filepath.Dir(inst.Dir)), "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	for range 20 { // a tick may end by chance
		chmod(t, filepath.Join(inst.Dir, "libcore.so"), 0o644) // alters only its change time
		if err := s.writeStamp(t.Context(), inst.Manifest, b.Digest(), inst.Targets); err != nil {
			t.Fatal(err)
		}
		file, err := s.statNoFollow(filepath.Join(b.Digest(), "libcore.so"))
		if err != nil {
			t.Fatal(err)
		}
		stampStat, err := s.statNoFollow(stampName(b.Digest()))
		if err != nil {
			t.Fatal(err)
		}
		if stampStat.Mtim.Nano() <= file.Ctim.Nano() {
			t.Fatalf("stamped at %d, in the tick in which a file changed at %d", stampStat.Mtim.Nano(), file.Ctim.Nano())
		}
	}
}

// The wait for the end of the tick is short, even if the file's time is hours in the
// future: the clock was set back, or is that of a file server.
func TestWaitTickIsBounded(t *testing.T) {
	because := errors.New("the caller gave up")
	for name, tt := range map[string]struct {
		ahead  time.Duration // of the file's time
		ticks  bool          // the clock moves
		cancel bool
		least  time.Duration
		most   time.Duration
		want   error
	}{
		"over":             {ahead: -time.Nanosecond, ticks: true},
		"the same tick":    {ticks: true, least: tick / 4, most: tick},
		"the next but one": {ahead: tick, ticks: true, least: tick, most: 3 * tick},
		"two hours ahead":  {ahead: 2 * time.Hour, ticks: true, least: tick, most: 10 * tick},
		"a clock at rest":  {least: tick, most: 10 * tick},
		"given up":         {ahead: 2 * time.Hour, cancel: true, want: because},
		"over, given up":   {ahead: -time.Nanosecond, cancel: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if tt.cancel {
					cancel(because)
				}
				begin := time.Now()
				clock := func() int64 {
					if !tt.ticks {
						return begin.UnixNano()
					}
					return time.Now().Truncate(tick / 2).UnixNano()
				}
				err := waitTick(ctx, clock()+int64(tt.ahead), clock)
				if took := time.Since(begin); !errors.Is(err, tt.want) || took < tt.least || took > tt.most {
					t.Errorf("%v after %s, want %v after %s to %s", err, took, tt.want, tt.least, tt.most)
				}
			})
		})
	}
}
