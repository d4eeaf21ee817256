package extract

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// location is a possible cache directory and the source of its name.
type location struct {
	dir  string
	from string
}

// findLocations lists the directories to try, best first. A directory chosen by the
// user is the only one: silently using another would be surprising. home returns
// the user's home directory for when the environment has none.
func findLocations(dir string, env func(string) string, home func() string) ([]location, error) {
	for _, p := range []location{{dir, "Options.CacheDir"}, {env(CacheEnv), CacheEnv}} {
		if p.dir == "" {
			continue
		}
		if !filepath.IsAbs(p.dir) {
			return nil, fmt.Errorf("%w: %s is %q; set it to an absolute path", ErrNoCache, p.from, p.dir)
		}
		return []location{{filepath.Clean(p.dir), p.from}}, nil
	}
	var out []location
	add := func(from, base string, sub ...string) {
		if !filepath.IsAbs(base) || isShared(base) {
			return
		}
		p := location{filepath.Join(append([]string{base}, sub...)...), from}
		if !slices.ContainsFunc(out, func(q location) bool { return q.dir == p.dir }) {
			out = append(out, p)
		}
	}
	// systemd's CacheDirectory=, see systemd.exec(5); several are joined by colons.
	systemd, _, _ := strings.Cut(env("CACHE_DIRECTORY"), ":")
	add("CACHE_DIRECTORY", systemd, "go-rocm")
	add("XDG_CACHE_HOME", env("XDG_CACHE_HOME"), "go-rocm")
	add("HOME", env("HOME"), ".cache", "go-rocm")
	h := home()
	add("/etc/passwd", h, ".cache", "go-rocm")
	add("XDG_DATA_HOME", env("XDG_DATA_HOME"), "go-rocm")
	add("HOME", env("HOME"), ".local", "share", "go-rocm")
	add("/etc/passwd", h, ".local", "share", "go-rocm")
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: none of %s, CACHE_DIRECTORY, XDG_CACHE_HOME and HOME is set and user %d has no home in /etc/passwd; set %s to a directory on a disk that allows running programs",
			ErrNoCache, CacheEnv, os.Geteuid(), CacheEnv)
	}
	return out, nil
}

// CacheDirs returns the cache directories that Extract tries for Options.CacheDir,
// best first. They need not exist.
func CacheDirs(cacheDir string) ([]string, error) {
	locations, err := findLocations(cacheDir, os.Getenv, passwdHome)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(locations))
	for i, p := range locations {
		out[i] = p.dir
	}
	return out, nil
}

// isShared reports whether all users can write to the directory: others can create
// names in it first, and its files are removed by age.
func isShared(dir string) bool {
	switch filepath.Clean(dir) {
	case "/", "/tmp", "/var/tmp", "/dev/shm", "/nonexistent":
		return true
	}
	return false
}

// passwdHome returns the user's home directory from /etc/passwd. Package os/user is no
// alternative: its result depends on cgo and, without cgo, on $HOME.
func passwdHome() string {
	f, err := os.Open("/etc/passwd")
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	uid := strconv.Itoa(os.Geteuid())
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if p := strings.Split(sc.Text(), ":"); len(p) >= 6 && p[2] == uid {
			return p[5]
		}
	}
	return ""
}
