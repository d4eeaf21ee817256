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
	home, other := t.TempDir(), t.TempDir()
	sub := func(dir string, names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	for name, tt := range map[string]struct {
		env    map[string]string
		passwd string
		want   []string
	}{
		"named":          {map[string]string{"GOROCM_CACHE": "/srv/cache/", "HOME": home}, home, []string{"/srv/cache"}},
		"home":           {map[string]string{"HOME": home}, "", []string{sub(home, ".cache", "go-rocm"), sub(home, ".local", "share", "go-rocm")}},
		"same in passwd": {map[string]string{"HOME": home}, home, []string{sub(home, ".cache", "go-rocm"), sub(home, ".local", "share", "go-rocm")}},
		"HOME unset":     {nil, home, []string{sub(home, ".cache", "go-rocm"), sub(home, ".local", "share", "go-rocm")}},
		"systemd": {map[string]string{"CACHE_DIRECTORY": other + ":/x", "HOME": "/"}, "/nonexistent",
			[]string{sub(other, "go-rocm")}},
		"XDG": {map[string]string{"XDG_CACHE_HOME": other, "HOME": home}, "",
			[]string{sub(other, "go-rocm"), sub(home, ".cache", "go-rocm"), sub(home, ".local", "share", "go-rocm")}},
		"relative and shared": {map[string]string{"XDG_CACHE_HOME": "cache", "HOME": "/tmp"}, home,
			[]string{sub(home, ".cache", "go-rocm"), sub(home, ".local", "share", "go-rocm")}},
	} {
		got, err := find(func(k string) string { return tt.env[k] }, func() string { return tt.passwd }, os.Geteuid())
		if err != nil || !slices.Equal(paths(got), tt.want) {
			t.Errorf("%s: %q, %v; want %q", name, paths(got), err, tt.want)
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
