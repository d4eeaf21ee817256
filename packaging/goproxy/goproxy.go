// Package goproxy writes a Go module as the files that a module proxy serves
// (https://go.dev/ref/mod#goproxy-protocol), so that `go get` takes it from a
// folder (GOPROXY=file:///…) or from any web server that hands the folder out.
//
// It exists because a bundle is not in the repository: what a version control
// system gives of this module has no llama.cpp inside. A proxy's archive may hold
// both, the sources and the bundle.
//
// The same files give the same bytes, and a version never gets others: a Go
// program that recorded a version's checksum refuses what does not match. A
// version is there before the list names it, so the folder may be in use.
//
// It neither chooses the files nor checks that they compile, and serves nothing.
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

// Errors that are returned wrapped.
var (
	// ErrOptions says that a version or the files of one cannot be published.
	ErrOptions = errors.New("go module")
	// ErrVersionConflict says that a published version would get other bytes.
	ErrVersionConflict = errors.New("the version of the module is already published with other bytes")
)

// Version is one version of a module.
type Version struct {
	// Path is the module's path, as its go.mod has it.
	Path string
	// Version is a canonical Go version: "v0.1.0", without build metadata.
	Version string
	// Time is told to those who ask when the version was made.
	Time time.Time
}

// File is a file of the module: its slash-separated path there, and where it is
// on this machine.
type File struct{ Name, From string }

// Pack writes the files of a version into the folder dir, which must exist:
// VERSION.zip, VERSION.mod and VERSION.info. Nested modules are left out, as a
// proxy leaves them out.
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
		return fmt.Errorf("%w: %s: there is no go.mod among the files", ErrOptions, v)
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

// String names the version as the go command does.
func (v Version) String() string { return v.Path + "@" + v.Version }

func (v Version) check() error {
	if err := module.Check(v.Path, v.Version); err != nil {
		return fmt.Errorf("%w: %w: give a version such as v0.1.0", ErrOptions, err)
	}
	if c := module.CanonicalVersion(v.Version); c != v.Version {
		return fmt.Errorf("%w: the go command knows %s as %q: give a version such as v0.1.0", ErrOptions, v, c)
	}
	if v.Time.Unix() <= 0 {
		return fmt.Errorf("%w: %s: its time is %s: give the time of its commit", ErrOptions, v, v.Time.UTC().Format(time.RFC3339))
	}
	return nil
}

// versionDir is where a proxy has the versions of a module.
func versionDir(modulePath string) (string, error) {
	escaped, err := module.EscapePath(modulePath)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrOptions, err)
	}
	return path.Join(escaped, "@v"), nil
}

// IsVersionList says whether a slash-separated path below a proxy's folder is that of a
// module's list of versions: the one file there that gets other bytes.
func IsVersionList(name string) bool {
	return path.Base(name) == "list" && path.Base(path.Dir(name)) == "@v"
}

// suffixes of a version's files, in the order in which they are published: the
// last one tells that the others are there.
var suffixes = []string{".zip", ".mod", ".info"}

// Add puts a version that Pack wrote into from into the proxy's folder dir. What
// is there of the module stays.
func Add(ctx context.Context, dir string, v Version, from string) error {
	if err := v.check(); err != nil {
		return err
	}
	at, err := versionDir(v.Path)
	if err != nil {
		return err
	}
	to := filepath.Join(dir, filepath.FromSlash(at))
	if err := makeFolders(dir, to); err != nil {
		return fmt.Errorf("publish %s: %w", v, err)
	}
	for _, suffix := range suffixes {
		if err := bring(ctx, filepath.Join(from, v.Version+suffix), filepath.Join(to, v.Version+suffix)); err != nil {
			return fmt.Errorf("publish %s: %w", v, err)
		}
	}
	return writeList(ctx, to)
}

// writeList names every version that is whole.
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

// Mirror adds the versions of every module in the proxy's folder from to that at
// to, which may be in use: all of them, or none if one of them has other bytes
// there. It waits for others that do so.
func Mirror(ctx context.Context, from, to string) error {
	versions, err := versionsIn(from)
	if err != nil {
		return err
	}
	if err := makeFolders(to, to); err != nil {
		return fmt.Errorf("publish modules: %w", err)
	}
	// The lock is on the folder itself, so that nothing is left for clients to see.
	lock := flock.New(to, flock.SetFlag(os.O_RDONLY))
	if ok, err := lock.TryLockContext(ctx, lockPoll); err != nil || !ok {
		return fmt.Errorf("wait for another publish into %s: %w", to, err)
	}
	return errors.Join(addAll(ctx, versions, to), lock.Close())
}

// lockPoll is how often a publisher asks whether another one has ended.
const lockPoll = 50 * time.Millisecond

func addAll(ctx context.Context, versions []packed, to string) error {
	if err := addable(ctx, versions, to); err != nil {
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

// CheckMirror says whether Mirror would refuse, and writes nothing.
func CheckMirror(ctx context.Context, from, to string) error {
	versions, err := versionsIn(from)
	if err != nil {
		return err
	}
	return addable(ctx, versions, to)
}

// packed is a version in a proxy's folder, and the folder with its files.
type packed struct {
	Version
	dir string
}

// addable refuses versions that are in the proxy's folder with other bytes.
func addable(ctx context.Context, versions []packed, proxy string) error {
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

// versionsIn finds every version of every module in a proxy's folder.
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
		return nil, fmt.Errorf("%w: %s holds no module: run `mage release`", ErrOptions, proxy)
	}
	return out, nil
}

// versionsOf reads the versions of a module, which are in the folder dir.
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
