//go:build linux

package supervise

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

func mkdir(t *testing.T, mode fs.FileMode, parts ...string) string {
	t.Helper()
	dir := filepath.Join(parts...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, mode); err != nil { // the umask has no say
		t.Fatal(err)
	}
	return dir
}

func modeOf(t *testing.T, name string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

// A folder that somebody named is used as it is or not at all: neither its mode
// nor what is not of our making in it changes.
func TestSharedSocketDir(t *testing.T) {
	for _, mode := range []fs.FileMode{0o755, 0o770, 0o701, 0o777} {
		dir := mkdir(t, mode, t.TempDir(), "shared")
		old := time.Now().Add(-time.Hour)
		for _, name := range []string{"empty", "0123456", "0123456789", "0123456G", "0123ABCD", "00c0ffee"} {
			if err := os.Chtimes(mkdir(t, 0o700, dir, name), old, old); err != nil {
				t.Fatal(err)
			}
		}
		spec := fake(t, roleServer, fakellama.Script{})
		spec.SocketDir = dir
		if _, err := Start(t.Context(), spec); !errors.Is(err, ErrPermission) {
			t.Errorf("%#o: %v, want ErrPermission", mode, err)
		}
		if got := modeOf(t, dir); got != mode.Perm() {
			t.Errorf("%#o became %#o", mode, got)
		}
		if n, err := ReapOrphans(dir, nil); n != 0 || err != nil {
			t.Errorf("ended %d, %v", n, err)
		}
		var left []string
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			left = append(left, e.Name())
		}
		// The last one has the name of a run of ours.
		if want := []string{"0123456", "0123456789", "0123456G", "0123ABCD", "empty"}; !slices.Equal(left, want) {
			t.Errorf("left %q, want %q", left, want)
		}
	}
}

// Our own folder is closed again where a mount or a user has opened it.
func TestDefaultSocketDirIsClosed(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("GOROCM_CACHE", t.TempDir())
	dir := mkdir(t, 0o770, os.Getenv("GOROCM_CACHE"), "run")
	spec := fake(t, roleServer, fakellama.Script{})
	spec.SocketDir = ""
	c := mustStart(t, spec)
	if filepath.Dir(c.dir) != dir || modeOf(t, dir) != 0o700 {
		t.Errorf("the run is %s, its folder has mode %#o", c.dir, modeOf(t, dir))
	}
}

// su leaves XDG_RUNTIME_DIR as it was: the folder of another user is none.
func TestDefaultSocketDir(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("GOROCM_CACHE", cache)
	own := t.TempDir()
	choices := map[string]string{
		own:                           filepath.Join(own, "go-rocm"),
		filepath.Join(own, "missing"): filepath.Join(cache, "run"),
		"relative":                    filepath.Join(cache, "run"),
		"/dev/null":                   filepath.Join(cache, "run"),
		"":                            filepath.Join(cache, "run"),
	}
	if os.Geteuid() == 0 {
		others := mkdir(t, 0o777, t.TempDir(), "others")
		if err := os.Chown(others, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		choices[others] = filepath.Join(cache, "run")
		if !forUser(own, 12345) || !forUser(others, 12345) || forUser(others, 54321) {
			t.Error("root's folder may be used by who can write to it, another user's by nobody else")
		}
	} else {
		choices["/"] = filepath.Join(cache, "run") // root's, and closed
	}
	for dir, want := range choices {
		t.Setenv("XDG_RUNTIME_DIR", dir)
		if got, err := defaultSocketDir(); got != want || err != nil {
			t.Errorf("XDG_RUNTIME_DIR=%s: %s, %v; want %s", dir, got, err, want)
		}
	}
}
