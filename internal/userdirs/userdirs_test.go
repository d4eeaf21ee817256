//go:build unix

package userdirs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func paths(dirs []Dir) []string {
	var out []string
	for _, d := range dirs {
		out = append(out, d.Path)
	}
	return out
}

func TestFindOrder(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		home string
		env  map[string]string
		want []string
		err  error
	}{
		"variable":   {env: map[string]string{EnvCache: "/x/", "HOME": "/h"}, want: []string{"/x"}},
		"named /tmp": {env: map[string]string{EnvCache: "/tmp/mine"}, want: []string{"/tmp/mine"}},
		"relative":   {env: map[string]string{EnvCache: "x"}, err: ErrNone},
		"home":       {env: map[string]string{"HOME": "/h"}, want: []string{"/h/.cache/go-rocm", "/h/.local/share/go-rocm"}},
		"xdg": {
			env:  map[string]string{"HOME": "/h", "XDG_CACHE_HOME": "/c", "XDG_DATA_HOME": "/d"},
			want: []string{"/c/go-rocm", "/h/.cache/go-rocm", "/d/go-rocm", "/h/.local/share/go-rocm"},
		},
		"relative xdg is ignored": {env: map[string]string{"XDG_CACHE_HOME": "c", "HOME": "/h"}, want: []string{"/h/.cache/go-rocm", "/h/.local/share/go-rocm"}},
		"systemd":                 {env: map[string]string{"CACHE_DIRECTORY": "/var/cache/a:/var/cache/b"}, want: []string{"/var/cache/a/go-rocm"}},
		"HOME unset":              {home: "/srv/u", want: []string{"/srv/u/.cache/go-rocm", "/srv/u/.local/share/go-rocm"}},
		"same home twice":         {home: "/h", env: map[string]string{"HOME": "/h"}, want: []string{"/h/.cache/go-rocm", "/h/.local/share/go-rocm"}},
		"home is shared":          {home: "/nonexistent", env: map[string]string{"HOME": "/tmp/"}, err: ErrNone},
		"home is the root":        {env: map[string]string{"HOME": "/"}, err: ErrNone},
		"nothing":                 {err: ErrNone},
	} {
		dirs, err := find(func(k string) string { return c.env[k] }, func() string { return c.home }, os.Geteuid())
		if !errors.Is(err, c.err) || !slices.Equal(paths(dirs), c.want) {
			t.Errorf("%s: %q, %v; want %q, %v", name, paths(dirs), err, c.want, c.err)
		}
		if err != nil && !strings.Contains(err.Error(), "absolute path") && !strings.Contains(err.Error(), "set "+EnvCache) {
			t.Errorf("%s: the error does not name a remedy: %v", name, err)
		}
		for _, d := range dirs {
			if d.Source == "" {
				t.Errorf("%s: %s has no source", name, d.Path)
			}
		}
	}
}

// A directory of another user is not used: root with a user's HOME takes the home
// directory of /etc/passwd.
func TestFindSkipsDirectoriesOfOtherUsers(t *testing.T) {
	t.Parallel()
	users, own := t.TempDir(), "/root-that-does-not-exist"
	const somebody = 4711
	if os.Geteuid() == 0 {
		if err := os.Chown(users, somebody, somebody); err != nil {
			t.Fatal(err)
		}
	}
	euid := 0
	if os.Geteuid() != 0 {
		euid = os.Geteuid() + 1 // the test's directory is another user's, then
	}
	env := map[string]string{"HOME": users, "XDG_CACHE_HOME": filepath.Join(users, "not", "there"), "CACHE_DIRECTORY": users}
	got, err := find(func(k string) string { return env[k] }, func() string { return own }, euid)
	want := []string{own + "/.cache/go-rocm", own + "/.local/share/go-rocm"}
	if err != nil || !slices.Equal(paths(got), want) {
		t.Errorf("%q, %v; want %q", paths(got), err, want)
	}
	// Without another home, the error names the owner and the remedy.
	_, err = find(func(k string) string { return env[k] }, func() string { return "" }, euid)
	if !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "HOME="+users+" belongs to user") || !strings.Contains(err.Error(), "set GOROCM_CACHE") {
		t.Errorf("%v", err)
	}
	// A directory that was named is used nevertheless.
	env["GOROCM_CACHE"] = users
	if got, err := find(func(k string) string { return env[k] }, func() string { return own }, euid); err != nil || !slices.Equal(paths(got), []string{users}) {
		t.Errorf("%q, %v", paths(got), err)
	}
}

func TestFindWithoutAnyHome(t *testing.T) {
	t.Parallel()
	_, err := find(func(string) string { return "" }, func() string { return "" }, 65532)
	if !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "user 65532 has no home") {
		t.Errorf("%v", err)
	}
	_, err = find(func(k string) string { return map[string]string{"GOROCM_CACHE": "cache"}[k] }, func() string { return "" }, 65532)
	if !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "absolute") {
		t.Errorf("%v", err)
	}
}

func TestFirstWritableFallsBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	blocked, free := Dir{filepath.Join(file, "go-rocm"), "XDG_CACHE_HOME"}, Dir{filepath.Join(dir, "new", "go-rocm"), "HOME"}
	if got, err := firstWritable([]Dir{blocked, free}); err != nil || got != free.Path {
		t.Errorf("%q, %v", got, err)
	}
	if info, err := os.Stat(free.Path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	if got, err := firstWritable([]Dir{blocked}); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "XDG_CACHE_HOME") {
		t.Errorf("%q, %v", got, err)
	}
}
