package build

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"forge.lthn.ai/core/go-rocm/internal/build/settings"
	"forge.lthn.ai/core/go-rocm/internal/ci"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

// The second build runs in another directory and resolves relative paths as the first.
func TestSecondBuildResolvesPathsAsTheFirst(t *testing.T) {
	root := t.TempDir()
	t.Chdir(root)
	environ := []string{"GOROCM_CACHE=cache", "GOROCM_SOURCE=llama.bundle", "GOROCM_SIGNING_KEY=keys/provenance", "GOROCM_MAINTAINER=A. Person <person@example.org>"}
	set, err := settings.Parse(environ)
	if err != nil {
		t.Fatal(err)
	}
	s := &Session{Settings: set}
	t.Chdir(t.TempDir())
	second, err := settings.Parse(append(environ, s.variations("/work", "/modules", "")...))
	if err != nil {
		t.Fatal(err)
	}
	want := [...]string{filepath.Join(root, "cache", "reproduce"), filepath.Join(root, "llama.bundle"), filepath.Join(root, "keys/provenance"), ""}
	if got := [...]string{second.Cache, second.Source, second.SigningKey, second.Published}; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The second cache keeps stages that were built a second time. Copies are removed when
// they are no longer reused, stale stages at once, and an interrupted copy is repeated.
func TestSeedCache(t *testing.T) {
	s := &Session{Settings: &settings.Settings{Cache: t.TempDir()}}
	first, second := filepath.Join(s.Settings.Cache, "stages"), filepath.Join(s.secondCache(), "stages")
	for _, name := range []string{"source-1", "compile-hip-1", "compile-core-1", "bundle-1"} {
		writeFile(t, filepath.Join(first, name, "stage.json"), "{}")
		writeFile(t, filepath.Join(first, name, "out", "file"), name)
	}
	writeFile(t, filepath.Join(first, "compile-hip-2.part", "out", "file"), "unfinished")
	if err := ensureWork(s.secondCache()); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(second, "bundle-1", "stage.json"), "built a second time")
	writeFile(t, filepath.Join(second, "bundle-0", "stage.json"), "stale")
	writeFile(t, filepath.Join(second, "compile-hip-1.part", "stage.json"), "interrupted")
	for _, step := range []struct{ reuse, want []string }{
		{[]string{"compile-hip", "compile-core"}, []string{"bundle-1", "compile-core-1", "compile-hip-1", "source-1"}},
		{[]string{"compile-hip"}, []string{"bundle-1", "compile-hip-1", "source-1"}},
		{[]string{"compile-hip"}, []string{"bundle-1", "compile-hip-1", "source-1"}},
		{nil, []string{"bundle-1", "source-1"}},
	} {
		if err := s.seedCache(step.reuse); err != nil {
			t.Fatal(err)
		}
		var got []string
		entries, err := os.ReadDir(second)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			got = append(got, e.Name())
		}
		if !slices.Equal(got, step.want) {
			t.Errorf("reuse %v: %v, want %v", step.reuse, got, step.want)
		}
		if b, err := os.ReadFile(filepath.Join(second, "source-1", "out", "file")); err != nil || string(b) != "source-1" {
			t.Errorf("the source is %q, %v", b, err)
		}
		if b, err := os.ReadFile(filepath.Join(second, "bundle-1", "stage.json")); err != nil || string(b) != "built a second time" {
			t.Errorf("the stage that was built a second time is %q, %v", b, err)
		}
	}
}

// A proof holds for the same release, unless its second build reused more stages than
// are allowed now.
func TestProofDependsOnReusedStages(t *testing.T) {
	s := &Session{Settings: &settings.Settings{Cache: t.TempDir()}}
	dist, other := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(dist, release.ChecksumsFile), "digests")
	writeFile(t, filepath.Join(other, release.ChecksumsFile), "other digests")
	check := func(dist string, reuse []string, want bool) {
		t.Helper()
		if got, err := s.isProven(dist, reuse); got != want || err != nil {
			t.Errorf("with %v reused: proven %v, %v, want %v", reuse, got, err, want)
		}
	}
	check(dist, []string{"compile-hip"}, false)
	for _, reused := range []string{"toolchain", "compile-hip"} {
		if err := s.recordProof(dist, []string{reused}); err != nil {
			t.Fatal(err)
		}
		check(dist, []string{reused}, true)
		check(dist, []string{"compile-core", reused}, true)
		check(dist, []string{"compile-core"}, false)
		check(dist, []string{"none"}, false)
		check(other, []string{reused}, false)
	}
	if _, err := s.isProven(t.TempDir(), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a release without checksums: %v", err)
	}
}

// The second of two builds reports that it waits and starts when the first has
// finished. A build that is cancelled while it waits does nothing.
func TestWithLockWaitsForTheHolder(t *testing.T) {
	dir := t.TempDir()
	lock := func() *flock.Flock { return flock.New(dir, flock.SetFlag(os.O_RDONLY)) }
	first, waits := &Session{Out: io.Discard}, make(chan struct{})
	second := &Session{Out: writerFunc(func(b []byte) (int, error) {
		if string(b) != "waiting for another build to finish\n" {
			t.Errorf("it printed %q", b)
		}
		close(waits)
		return len(b), nil
	})}
	order, done := make(chan string, 2), make(chan error, 1)
	err := first.withLock(t.Context(), lock(), "another build", func() error {
		go func() {
			done <- second.withLock(t.Context(), lock(), "another build", func() error {
				order <- "second"
				return nil
			})
		}()
		<-waits
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		third := &Session{Out: io.Discard}
		if err := third.withLock(gone, lock(), "another build", func() error {
			t.Error("ran while the first held the lock")
			return nil
		}); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "another build") {
			t.Errorf("cancelled: %v", err)
		}
		order <- "first"
		return nil
	})
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	if a, b := <-order, <-order; a != "first" {
		t.Errorf("the order is %s, %s", a, b)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// A late check reuses the core, and a very late one leaves the second build to the
// next run.
func TestReusedInCIDependsOnTheTimeLeft(t *testing.T) {
	for _, c := range []struct {
		took time.Duration
		core bool
		err  error
	}{{0, false, nil}, {coreDeadline + time.Minute, true, nil}, {buildDeadline + time.Minute, false, ci.ErrNotDone}} {
		s := &Session{started: time.Now().Add(-c.took)}
		got, err := s.reusedInCI()
		for _, name := range []string{"compile-core", "compile-vulkan"} {
			if reused := slices.Contains(got, name); reused != c.core || !errors.Is(err, c.err) {
				t.Errorf("after %v: %s reused: %v, %v", c.took, name, reused, err)
			}
		}
	}
}
