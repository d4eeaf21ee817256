// Package goproxy writes a Go module as the files of a module proxy
// (https://go.dev/ref/mod#goproxy-protocol), so that `go get` can download it from
// a directory (GOPROXY=file:///…) or from any web server that serves the directory.
//
// It exists because the bundle is not in the repository: the module that a version
// control system serves does not contain llama.cpp. The archive of a proxy can
// contain both the sources and the bundle.
//
// The same files produce the same bytes, and a version never changes: the go
// command rejects an archive that does not match the recorded checksum. The files
// of a version are written before the list of versions, so clients may read the
// directory meanwhile.
//
// The package neither selects the files nor checks that they compile, and it serves
// nothing.
package goproxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/zip"
)

// Errors that the functions of this package wrap.
var (
	// ErrOptions reports a version that cannot be published.
	ErrOptions = errors.New("go module")
	// ErrVersionConflict reports a published version with other contents.
	ErrVersionConflict = errors.New("the version of the module is already published with other contents")
)

// Version is one version of a module.
type Version struct {
	// Path is the module path in go.mod.
	Path string
	// Version is a canonical Go version: "v0.1.0", without build metadata.
	Version string
	// Time is the time of the version in VERSION.info.
	Time time.Time
}

// File is a file of the module: its slash-separated path in the module, and its
// path on disk.
type File struct{ Name, From string }

// Subdirectory returns the files below a slash-separated directory, named relative to
// it: those of a nested module.
func Subdirectory(files []File, dir string) []File {
	var out []File
	for _, f := range files {
		if name, ok := strings.CutPrefix(f.Name, dir+"/"); ok {
			out = append(out, File{Name: name, From: f.From})
		}
	}
	return out
}

// Pack writes the files of a version into dir, which must exist: VERSION.zip,
// VERSION.mod and VERSION.info. Like any proxy it omits nested modules.
func Pack(ctx context.Context, dir string, v Version, files []File) error {
	if err := v.check(); err != nil {
		return err
	}
	list := make([]zip.File, 0, len(files))
	var mod string
	for _, f := range files {
		list = append(list, diskFile(f))
		if f.Name == "go.mod" {
			mod = f.From
		}
	}
	if mod == "" {
		return fmt.Errorf("%w: %s: the files contain no go.mod", ErrOptions, v)
	}
	slices.SortFunc(list, func(a, b zip.File) int { return strings.Compare(a.Path(), b.Path()) })
	modText, err := os.ReadFile(mod)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOptions, err)
	}
	info, err := json.Marshal(struct {
		Version string
		Time    time.Time
	}{v.Version, v.Time.UTC().Truncate(time.Second)})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOptions, err)
	}
	for name, text := range map[string][]byte{".mod": modText, ".info": append(info, '\n')} {
		if err := replace(ctx, filepath.Join(dir, v.Version+name), bytes.NewReader(text)); err != nil {
			return fmt.Errorf("write %s%s: %w", v.Version, name, err)
		}
	}
	if err := packZip(ctx, filepath.Join(dir, v.Version+".zip"), v, list, maxZip); err != nil {
		return fmt.Errorf("write %s.zip: %w", v.Version, err)
	}
	return nil
}

// String returns PATH@VERSION, as the go command prints it.
func (v Version) String() string { return v.Path + "@" + v.Version }

func (v Version) check() error {
	if err := module.Check(v.Path, v.Version); err != nil {
		return fmt.Errorf("%w: %w: use a version such as v0.1.0", ErrOptions, err)
	}
	if c := module.CanonicalVersion(v.Version); c != v.Version {
		return fmt.Errorf("%w: the canonical version of %s is %q: use a version such as v0.1.0", ErrOptions, v, c)
	}
	if v.Time.Unix() <= 0 {
		return fmt.Errorf("%w: %s: its time is %s: set the time of its commit", ErrOptions, v, v.Time.UTC().Format(time.RFC3339))
	}
	return nil
}

// versionDir returns the directory of a module's versions in a proxy.
func versionDir(modulePath string) (string, error) {
	escaped, err := module.EscapePath(modulePath)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrOptions, err)
	}
	return path.Join(escaped, "@v"), nil
}

// IsVersionList reports whether a slash-separated path in a proxy's directory is a
// module's list of versions, the only file there whose contents change.
func IsVersionList(name string) bool {
	return path.Base(name) == "list" && path.Base(path.Dir(name)) == "@v"
}

// suffixes of a version's files in the order in which they are published. A version
// with the last one is complete.
var suffixes = []string{".zip", ".mod", ".info"}

// Add adds a version, which Pack wrote into the directory from, to the proxy in dir.
// The other versions of the module stay.
func Add(ctx context.Context, dir string, v Version, from string) error {
	if err := v.check(); err != nil {
		return err
	}
	at, err := versionDir(v.Path)
	if err != nil {
		return err
	}
	to := filepath.Join(dir, filepath.FromSlash(at))
	if err := mkdirAll(dir, to); err != nil {
		return fmt.Errorf("publish %s: %w", v, err)
	}
	for _, suffix := range suffixes {
		if err := addImmutable(ctx, filepath.Join(from, v.Version+suffix), filepath.Join(to, v.Version+suffix)); err != nil {
			return fmt.Errorf("publish %s: %w", v, err)
		}
	}
	return writeList(ctx, to)
}

// writeList writes the list of the complete versions.
func writeList(ctx context.Context, dir string) error {
	infos, err := filepath.Glob(filepath.Join(dir, "v*.info"))
	if err != nil {
		return fmt.Errorf("list the versions: %w", err)
	}
	var versions []string
	for _, name := range infos {
		versions = append(versions, strings.TrimSuffix(filepath.Base(name), ".info"))
	}
	semver.Sort(versions)
	text := strings.Join(versions, "\n") + "\n"
	if old, err := os.ReadFile(filepath.Join(dir, "list")); err == nil && string(old) == text {
		return nil
	}
	if err := replace(ctx, filepath.Join(dir, "list"), strings.NewReader(text)); err != nil {
		return fmt.Errorf("list the versions: %w", err)
	}
	return nil
}

// Mirror adds the versions of all modules in the proxy at from to the one at to,
// which clients may be using. It adds none of them if one conflicts with a version
// there. It waits for other publishers.
func Mirror(ctx context.Context, from, to string) error {
	versions, err := versionsIn(from)
	if err != nil {
		return err
	}
	if err := mkdirAll(to, to); err != nil {
		return fmt.Errorf("publish modules: %w", err)
	}
	// The lock is on the directory itself, so clients see no lock file.
	lock := flock.New(to, flock.SetFlag(os.O_RDONLY))
	if ok, err := lock.TryLockContext(ctx, lockPollInterval); err != nil || !ok {
		return fmt.Errorf("wait for another publish into %s: %w", to, err)
	}
	return errors.Join(addAll(ctx, versions, to), lock.Close())
}

// lockPollInterval is how often a publisher retries to lock the directory.
const lockPollInterval = 50 * time.Millisecond

func addAll(ctx context.Context, versions []packed, to string) error {
	if err := checkAddable(ctx, versions, to); err != nil {
		return err
	}
	for _, v := range versions {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := Add(ctx, to, v.Version, v.dir); err != nil {
			return err
		}
	}
	return nil
}

// CheckMirror returns the error that Mirror would return before it writes
// anything.
func CheckMirror(ctx context.Context, from, to string) error {
	versions, err := versionsIn(from)
	if err != nil {
		return err
	}
	return checkAddable(ctx, versions, to)
}

// packed is a version in a proxy, and the directory with its files.
type packed struct {
	Version
	dir string
}

// checkAddable rejects versions that conflict with those in the proxy.
func checkAddable(ctx context.Context, versions []packed, proxy string) error {
	for _, v := range versions {
		if err := v.check(); err != nil {
			return err
		}
		at, err := versionDir(v.Path)
		if err != nil {
			return err
		}
		for _, suffix := range suffixes {
			if err := ctx.Err(); err != nil {
				return err
			}
			name := v.Version.Version + suffix
			if _, err := has(ctx, filepath.Join(v.dir, name), filepath.Join(proxy, filepath.FromSlash(at), name)); err != nil {
				return fmt.Errorf("publish %s: %w", v.Version, err)
			}
		}
	}
	return nil
}

// versionsIn returns all versions of all modules in a proxy.
func versionsIn(proxy string) ([]packed, error) {
	var out []packed
	err := filepath.WalkDir(proxy, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !IsVersionList(filepath.ToSlash(name)) {
			return err
		}
		versions, err := versionsOf(proxy, filepath.Dir(name))
		out = append(out, versions...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("publish modules: %w", err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: there is no module in %s: run `mage release`", ErrOptions, proxy)
	}
	return out, nil
}

// versionsOf returns the versions of a module in the directory dir.
func versionsOf(proxy, dir string) ([]packed, error) {
	rel, err := filepath.Rel(proxy, dir)
	if err != nil {
		return nil, err
	}
	modulePath, err := module.UnescapePath(path.Dir(filepath.ToSlash(rel)))
	if err != nil {
		return nil, err
	}
	infos, err := filepath.Glob(filepath.Join(dir, "v*.info"))
	if err != nil {
		return nil, err
	}
	var out []packed
	for _, name := range infos {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		v := Version{Path: modulePath}
		if err := json.Unmarshal(text, &v); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, packed{v, dir})
	}
	return out, nil
}
