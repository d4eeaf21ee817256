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

// place is a folder that may hold the cache, and where its name came from.
type place struct {
	dir  string
	from string
}

// findPlaces lists the folders to try, best first. A folder that the user
// named is the only one: silently taking another would surprise. home looks
// up the user's home when the environment has none.
func findPlaces(dir string, env func(string) string, home func() string) ([]place, error) {
	for _, p := range []place{{dir, "Options.CacheDir"}, {env(CacheEnv), CacheEnv}} {
		if p.dir == "" {
			continue
		}
		if !filepath.IsAbs(p.dir) {
			return nil, fmt.Errorf("%w: %s is %q; give an absolute path", ErrNoCache, p.from, p.dir)
		}
		return []place{{filepath.Clean(p.dir), p.from}}, nil
	}
	var out []place
	add := func(from, base string, sub ...string) {
		if !filepath.IsAbs(base) || public(base) {
			return
		}
		p := place{filepath.Join(append([]string{base}, sub...)...), from}
		if !slices.ContainsFunc(out, func(q place) bool { return q.dir == p.dir }) {
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
		return nil, fmt.Errorf("%w: none of %s, CACHE_DIRECTORY, XDG_CACHE_HOME and HOME is set and user %d has no home in /etc/passwd; set %s to a folder on a disk that may run programs",
			ErrNoCache, CacheEnv, os.Geteuid(), CacheEnv)
	}
	return out, nil
}

// CacheDirs lists the folders that Extract tries for the cache, best first, for
// Options.CacheDir. None needs to be there yet.
func CacheDirs(cacheDir string) ([]string, error) {
	places, err := findPlaces(cacheDir, os.Getenv, passwdHome)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(places))
	for i, p := range places {
		out[i] = p.dir
	}
	return out, nil
}

// public reports folders that everybody writes to: names in them can be taken
// by others before us, and they are swept by age.
func public(dir string) bool {
	switch filepath.Clean(dir) {
	case "/", "/tmp", "/var/tmp", "/dev/shm", "/nonexistent":
		return true
	}
	return false
}

// passwdHome reads the user's home from /etc/passwd. os/user is not used: its
// answer depends on cgo and, without, on the very variable that is missing.
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
