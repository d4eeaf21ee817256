package stage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gofrs/flock"
)

// Results that were used since a time are kept, whoever created them; older ones are removed,
// finished or not, unless a process is building them.
func TestPrune(t *testing.T) {
	c := open(t)
	long := time.Now().Add(-100 * 24 * time.Hour)
	aged := func(name string) string {
		t.Helper()
		r, err := c.Do(t.Context(), name, 1, write(name))
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(r.Dir)
		if err := os.Chtimes(filepath.Join(dir, recordName), long, long); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	old, looked, done, held := aged("old"), aged("looked"), aged("done"), aged("held")
	if _, ok, err := c.Lookup("looked", 1); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if r, err := c.Do(t.Context(), "done", 1, write("again")); err != nil || !r.Cached {
		t.Fatal(r, err)
	}
	lock := flock.New(held + ".lock")
	if err := lock.Lock(); err != nil {
		t.Fatal(err)
	}
	killed, running := filepath.Join(c.dir, "killed-0123456789abcdef01234567.part"), filepath.Join(c.dir, "running-0123456789abcdef01234567.part")
	for dir, when := range map[string]time.Time{killed: long, running: time.Now()} {
		err := errors.Join(os.MkdirAll(filepath.Join(dir, "out"), 0o700), os.Chtimes(dir, when, when))
		if err != nil {
			t.Fatal(err)
		}
	}
	// Directories of the user in the cache are as old, but not stages.
	foreign, download := filepath.Join(c.dir, "notes-about-stages"), filepath.Join(c.dir, "films-2026.part")
	for _, dir := range []string{foreign, download} {
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chtimes(dir, long, long)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want ...string) {
		t.Helper()
		got, err := c.Prune(t.Context(), time.Now().Add(-30*24*time.Hour))
		for i := range want {
			want[i] = filepath.Base(want[i])
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("removed %q, %v, want %q", got, err, want)
		}
	}
	check(killed, old)
	for _, dir := range []string{looked, done, held, running, foreign, download} {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	check(held)
	if r, err := c.Do(t.Context(), "old", 1, write("old")); err != nil || r.Cached {
		t.Errorf("what was removed is made again: %+v, %v", r, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Prune(gone, time.Now()); !errors.Is(err, context.Canceled) {
		t.Errorf("called off: %v", err)
	}
}
