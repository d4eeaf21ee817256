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

	"forge.lthn.ai/core/go-rocm/internal/ci"
	"forge.lthn.ai/core/go-rocm/internal/settings"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

// The second build runs in another folder and finds there what was named from the
// first one's.
func TestSecondBuildFindsWhatIsNamed(t *testing.T) {
	root := t.TempDir()
	t.Chdir(root)
	environ := []string{"GOROCM_CACHE=cache", "GOROCM_SOURCE=llama.bundle", "GOROCM_SIGNING_KEY=keys/provenance", "GOROCM_MAINTAINER=A. Person <person@example.org>"}
	set, err := settings.Parse(environ)
	if err != nil {
		t.Fatal(err)
	}
	s := &Session{Settings: set}
	t.Chdir(t.TempDir())
	second, err := settings.Parse(append(environ, s.elsewhere("/work", "/modules", "")...))
	if err != nil {
		t.Fatal(err)
	}
	want := [...]string{filepath.Join(root, "cache", "reproduce"), filepath.Join(root, "llama.bundle"), filepath.Join(root, "keys/provenance"), ""}
	if got := [...]string{second.Cache, second.Source, second.SigningKey, second.Published}; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The second cache keeps what was made a second time, and nothing else: what
// was taken over goes when it is no longer taken, what is stale at once, and a
// copy that was cut short is made again.
func TestSeed(t *testing.T) {
	s := &Session{Settings: &settings.Settings{Cache: t.TempDir()}}
	first, second := filepath.Join(s.Settings.Cache, "stages"), filepath.Join(s.secondCache(), "stages")
	for _, name := range []string{"source-1", "compile-hip-1", "compile-core-1", "bundle-1"} {
		put(t, filepath.Join(first, name, "stage.json"), "{}")
		put(t, filepath.Join(first, name, "out", "file"), name)
	}
	put(t, filepath.Join(first, "compile-hip-2.part", "out", "file"), "unfinished")
	put(t, filepath.Join(second, "bundle-1", "stage.json"), "made a second time")
	put(t, filepath.Join(second, "bundle-0", "stage.json"), "of inputs that are gone")
	put(t, filepath.Join(second, "compile-hip-1.part", "stage.json"), "cut short")
	for _, step := range []struct{ takes, want []string }{
		{[]string{"compile-hip", "compile-core"}, []string{"bundle-1", "compile-core-1", "compile-hip-1", "source-1"}},
		{[]string{"compile-hip"}, []string{"bundle-1", "compile-hip-1", "source-1"}},
		{[]string{"compile-hip"}, []string{"bundle-1", "compile-hip-1", "source-1"}},
		{nil, []string{"bundle-1", "source-1"}},
	} {
		if err := s.seed(step.takes); err != nil {
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
			t.Errorf("takes %v: %v, want %v", step.takes, got, step.want)
		}
		if b, err := os.ReadFile(filepath.Join(second, "source-1", "out", "file")); err != nil || string(b) != "source-1" {
			t.Errorf("the source is %q, %v", b, err)
		}
		if b, err := os.ReadFile(filepath.Join(second, "bundle-1", "stage.json")); err != nil || string(b) != "made a second time" {
			t.Errorf("what was made a second time is %q, %v", b, err)
		}
	}
}

// What two builds have given once is not built a second time again, unless more
// was taken over then than is allowed now, or it is another release.
func TestProven(t *testing.T) {
	s := &Session{Settings: &settings.Settings{Cache: t.TempDir()}}
	dist, other := t.TempDir(), t.TempDir()
	put(t, filepath.Join(dist, release.ChecksumsFile), "digests")
	put(t, filepath.Join(other, release.ChecksumsFile), "other digests")
	check := func(dist string, takes []string, want bool) {
		t.Helper()
		if got, err := s.proven(dist, takes); got != want || err != nil {
			t.Errorf("with %v taken over: proven %v, %v, want %v", takes, got, err, want)
		}
	}
	check(dist, []string{"compile-hip"}, false)
	for _, took := range []string{"toolchain", "compile-hip"} {
		if err := s.prove(dist, []string{took}); err != nil {
			t.Fatal(err)
		}
		check(dist, []string{took}, true)
		check(dist, []string{"compile-core", took}, true)
		check(dist, []string{"compile-core"}, false)
		check(dist, []string{"none"}, false)
		check(other, []string{took}, false)
	}
	if _, err := s.proven(t.TempDir(), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a release without a list: %v", err)
	}
}

// Of two builds in a checkout the second says that it waits, and begins when the
// first has ended; one that is called off while it waits does nothing.
func TestAlone(t *testing.T) {
	dir := t.TempDir()
	lock := func() *flock.Flock { return flock.New(dir, flock.SetFlag(os.O_RDONLY)) }
	first, waits := &Session{Out: io.Discard}, make(chan struct{})
	second := &Session{Out: writerFunc(func(b []byte) (int, error) {
		if string(b) != "waiting for another build to end\n" {
			t.Errorf("it says %q", b)
		}
		close(waits)
		return len(b), nil
	})}
	order, done := make(chan string, 2), make(chan error, 1)
	err := first.alone(t.Context(), lock(), "another build", func() error {
		go func() {
			done <- second.alone(t.Context(), lock(), "another build", func() error {
				order <- "second"
				return nil
			})
		}()
		<-waits
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		third := &Session{Out: io.Discard}
		if err := third.alone(gone, lock(), "another build", func() error {
			t.Error("ran beside the first")
			return nil
		}); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "another build") {
			t.Errorf("called off: %v", err)
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

// A check that has taken long leaves the second compile of the core to the
// next one, and one that has taken very long the whole second build.
func TestTakenInCI(t *testing.T) {
	for _, c := range []struct {
		took time.Duration
		core bool
		err  error
	}{{0, false, nil}, {coreTime + time.Minute, true, nil}, {buildTime + time.Minute, false, ci.ErrNotDone}} {
		s := &Session{began: time.Now().Add(-c.took)}
		got, err := s.takenInCI()
		if core := slices.Contains(got, "compile-core"); core != c.core || !errors.Is(err, c.err) {
			t.Errorf("after %v: core taken over: %v, %v", c.took, core, err)
		}
	}
}
