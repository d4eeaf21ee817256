package stage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofrs/flock"
)

func open(t *testing.T) *Cache {
	t.Helper()
	c, err := Open(filepath.Join(t.TempDir(), "stages"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func write(content string) func(context.Context, string) error {
	return func(_ context.Context, dir string) error {
		return os.WriteFile(filepath.Join(dir, "file"), []byte(content), 0o600)
	}
}

func TestDoOnceForEqualInputs(t *testing.T) {
	c := open(t)
	first, err := c.Do(t.Context(), "step", map[string]string{"a": "1"}, write("x"))
	if err != nil || first.Cached {
		t.Fatalf("got %+v, %v", first, err)
	}
	second, err := c.Do(t.Context(), "step", map[string]string{"a": "1"}, func(context.Context, string) error {
		return errors.New("was made again")
	})
	if err != nil || !second.Cached || second.Output != first.Output || second.Dir != first.Dir {
		t.Fatalf("got %+v, %v", second, err)
	}
	other, err := c.Do(t.Context(), "step", map[string]string{"a": "2"}, write("x"))
	if err != nil || other.Cached || other.Key == first.Key {
		t.Fatalf("other inputs: got %+v, %v", other, err)
	}
	if other.Output != first.Output {
		t.Error("equal files have different output digests, so later steps would be redone")
	}
}

func TestFailureLeavesNothing(t *testing.T) {
	c := open(t)
	broken := errors.New("broken")
	_, err := c.Do(t.Context(), "step", 1, func(ctx context.Context, dir string) error {
		return errors.Join(write("half")(ctx, dir), broken)
	})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "stage step") {
		t.Fatalf("got %v", err)
	}
	if _, ok, err := c.Lookup("step", 1); ok || err != nil {
		t.Fatalf("a failed step was kept: %v %v", ok, err)
	}
	left, err := filepath.Glob(filepath.Join(c.dir, "*.part"))
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v %v", left, err)
	}
}

// A killed process leaves its unfinished directory. The next one must not use it as a result,
// nor mix its files with its own.
func TestUnfinishedResultOfAKilledBuild(t *testing.T) {
	c := open(t)
	key, err := Key(1)
	if err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(c.path("step", key)+".part", "out")
	if err := os.MkdirAll(part, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(part, "old"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(t.Context(), "step", 1, write("new"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(res.Dir, "old")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file of the killed build is in the result: %v", err)
	}
}

func TestBrokenRecordSaysWhatToDo(t *testing.T) {
	c := open(t)
	res, err := c.Do(t.Context(), "step", 1, write("x"))
	if err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(filepath.Dir(res.Dir), recordName)
	if err := os.WriteFile(record, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(t.Context(), "step", 1, write("x")); err == nil || !strings.Contains(err.Error(), "remove the directory") {
		t.Errorf("got %v", err)
	}
}

func TestConcurrentBuildsMakeOnce(t *testing.T) {
	c := open(t)
	const builds = 8
	var made atomic.Int32
	var wg, started sync.WaitGroup
	started.Add(builds)
	for range builds {
		wg.Go(func() {
			started.Done()
			_, err := c.Do(t.Context(), "step", 1, func(ctx context.Context, dir string) error {
				made.Add(1)
				started.Wait() // no build comes after this one is made
				return write("x")(ctx, dir)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times", made.Load())
	}
}

func TestDigest(t *testing.T) {
	build := func(mode os.FileMode, content, name string, when time.Time) string {
		dir := t.TempDir()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Chmod(file, mode), os.Chtimes(file, when, when)); err != nil {
			t.Fatal(err)
		}
		d, err := Digest(dir)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	base := build(0o644, "x", "a", time.Unix(1, 0))
	if got := build(0o644, "x", "a", time.Unix(9, 0)); got != base {
		t.Error("the digest depends on the time")
	}
	for name, got := range map[string]string{
		"mode":    build(0o755, "x", "a", time.Unix(1, 0)),
		"content": build(0o644, "y", "a", time.Unix(1, 0)),
		"name":    build(0o644, "x", "b", time.Unix(1, 0)),
	} {
		if got == base {
			t.Errorf("the digest does not depend on the %s", name)
		}
	}
}

// Every file of a result is synced, and each directory after its content.
func TestSyncTree(t *testing.T) {
	dir := t.TempDir()
	err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700), os.Mkdir(filepath.Join(dir, "empty"), 0o700),
		os.WriteFile(filepath.Join(dir, "a", "b", "file"), nil, 0o600), os.WriteFile(filepath.Join(dir, "z"), nil, 0o600),
		os.Symlink("nowhere", filepath.Join(dir, "a", "link")))
	if err != nil {
		t.Fatal(err)
	}
	var synced []string
	err = syncTree(dir, func(f *os.File) error {
		name, err := filepath.Rel(dir, f.Name())
		synced = append(synced, name)
		return err
	})
	if want := []string{"a/b/file", "z", "empty", "a/b", "a", "."}; err != nil || !slices.Equal(synced, want) {
		t.Errorf("got %q, %v, want %q", synced, err, want)
	}
	full := errors.New("input/output error")
	if err := syncTree(dir, func(*os.File) error { return full }); !errors.Is(err, full) {
		t.Errorf("a disk that fails: %v", err)
	}
}

// Who waits for another process is told so, once, before it waits.
func TestDoReportsThatItWaits(t *testing.T) {
	c := open(t)
	key, err := Key(1)
	if err != nil {
		t.Fatal(err)
	}
	other := flock.New(c.path("module", key) + ".lock")
	if err := other.Lock(); err != nil {
		t.Fatal(err)
	}
	var waited []string
	c.Waiting = func(name string) {
		waited = append(waited, name)
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	}
	for range 2 { // the second result is in the cache
		if _, err := c.Do(t.Context(), "module", 1, write("x")); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(waited, []string{"module"}) {
		t.Errorf("waited for %q", waited)
	}
}
