// Package userdirs decides which directories hold the files of the user who runs
// the program: unpacked bundles, sockets and what was learned about a bundle. All
// of them follow one rule, so that an environment in which one is found has the
// others as well.
//
// The rule, in order:
//
//  1. $GOROCM_CACHE, and then nothing else: a directory that somebody named is
//     not replaced by another one.
//  2. $CACHE_DIRECTORY (systemd), $XDG_CACHE_HOME, $HOME/.cache, and .cache in the
//     home directory of /etc/passwd, for an environment without HOME.
//  3. $XDG_DATA_HOME, and .local/share in the same home directories, for a cache
//     on a file system that allows no programs.
//
// A directory of step 2 or 3 that belongs to another user is skipped. root has the
// HOME of a user after "su" or "sudo -E"; a directory that root creates there is of
// no use to that user, and in the way.
package userdirs

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// EnvCache is the variable that names the cache directory.
const EnvCache = "GOROCM_CACHE"

// ErrNone reports an environment without a usable directory.
var ErrNone = errors.New("no cache directory")

// Dir is a directory that may hold the user's files. It need not exist.
type Dir struct {
	Path   string
	Source string // the variable or file that names it
}

// Cache returns the directories to try for the cache, best first. There is at
// least one.
func Cache() ([]Dir, error) { return find(os.Getenv, passwdHome, os.Geteuid()) }

// Writable returns the first of the directories of [Cache] that exists, or can be
// created, and can be written to. It creates that directory with mode 0700.
func Writable() (string, error) {
	dirs, err := Cache()
	if err != nil {
		return "", err
	}
	return firstWritable(dirs)
}

func firstWritable(dirs []Dir) (string, error) {
	var errs []error
	for _, d := range dirs {
		err := os.MkdirAll(d.Path, 0o700)
		if err == nil {
			err = checkWritable(d.Path)
		}
		if err == nil {
			return d.Path, nil
		}
		errs = append(errs, fmt.Errorf("%w (from %s)", err, d.Source))
	}
	return "", fmt.Errorf("%w that can be written to: %w; set %s to another directory", ErrNone, errors.Join(errs...), EnvCache)
}

// OwnedByOther reports whether dir, or its nearest existing parent, belongs to a
// user other than the one who runs the program, root included, and to which.
func OwnedByOther(dir string) (owner int, other bool) {
	uid, ok := ownerOf(dir)
	return uid, ok && uid != os.Geteuid()
}

// find is Cache for an environment, a home directory of /etc/passwd and a user.
func find(env func(string) string, home func() string, euid int) ([]Dir, error) {
	if dir := env(EnvCache); dir != "" {
		if !filepath.IsAbs(dir) {
			return nil, fmt.Errorf("%w: %s is %q; set an absolute path", ErrNone, EnvCache, dir)
		}
		return []Dir{{filepath.Clean(dir), EnvCache}}, nil
	}
	l := list{euid: euid}
	add := l.add
	// CacheDirectory= of systemd.exec(5) may name several, joined with colons.
	systemd, _, _ := strings.Cut(env("CACHE_DIRECTORY"), ":")
	add("CACHE_DIRECTORY", systemd, "go-rocm")
	add("XDG_CACHE_HOME", env("XDG_CACHE_HOME"), "go-rocm")
	add("HOME", env("HOME"), ".cache", "go-rocm")
	own := home()
	add("/etc/passwd", own, ".cache", "go-rocm")
	add("XDG_DATA_HOME", env("XDG_DATA_HOME"), "go-rocm")
	add("HOME", env("HOME"), ".local", "share", "go-rocm")
	add("/etc/passwd", own, ".local", "share", "go-rocm")
	if len(l.dirs) > 0 {
		return l.dirs, nil
	}
	return nil, l.none("CACHE_DIRECTORY, XDG_CACHE_HOME", EnvCache, "a directory on a disk that allows running programs")
}

// list collects directories in the order of preference.
type list struct {
	euid    int
	dirs    []Dir
	foreign []string // directories that belong to other users
}

// add adds a directory below base, which source names, unless base is shared, not
// absolute, or another user's.
func (l *list) add(source, base string, sub ...string) {
	if !filepath.IsAbs(base) || isShared(base) {
		return
	}
	// A directory of root's is for everybody: services and containers have such
	// homes, and permissions decide there.
	if owner, ok := ownerOf(base); ok && owner != l.euid && owner != 0 {
		l.foreign = append(l.foreign, fmt.Sprintf("%s=%s belongs to user %d", source, base, owner))
		return
	}
	d := Dir{filepath.Join(append([]string{base}, sub...)...), source}
	if !slices.ContainsFunc(l.dirs, func(other Dir) bool { return other.Path == d.Path }) {
		l.dirs = append(l.dirs, d)
	}
}

// none returns the error for an empty list. variables are those that were tried
// between the variable named first and HOME.
func (l *list) none(variables, first, remedy string) error {
	reason := fmt.Sprintf("none of %s, %s and HOME is set, and user %d has no home directory in /etc/passwd", first, variables, l.euid)
	if len(l.foreign) > 0 {
		reason = strings.Join(slices.Compact(l.foreign), ", ") + fmt.Sprintf(", not to user %d who runs the program", l.euid)
	}
	return fmt.Errorf("%w: %s; set %s to %s", ErrNone, reason, first, remedy)
}

// isShared reports directories that every user writes to: another user may take
// our names in them, and files are removed by age.
func isShared(dir string) bool {
	switch filepath.Clean(dir) {
	case "/", "/tmp", "/var/tmp", "/dev/shm", "/nonexistent":
		return true
	}
	return false
}

// passwd is the file of users.
var passwd = "/etc/passwd"

// UsePasswd replaces /etc/passwd by another file. It is for tests of whole programs,
// which must not find the directories of the user who runs the tests.
func UsePasswd(path string) { passwd = path }

// passwdHome returns the user's home directory in /etc/passwd. os/user would
// answer from $HOME when it is built without cgo, which is what is missing.
func passwdHome() string {
	f, err := os.Open(passwd)
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
