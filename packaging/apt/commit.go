package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
	"forge.lthn.ai/core/go-rocm/internal/fsync"
)

// publication is everything that a publish writes.
type publication struct {
	release              *release
	text                 []byte // Release
	inRelease, signature []byte // nil in an unsigned repository
	indexes              []indexFile
	pool                 map[string]string // source file by path in the repository
	top                  map[string][]byte // files for administrators, by name
	retention            time.Duration
	previous             *release
}

// commit writes the files in the order in which clients may see them: packages,
// indexes by digest, indexes by name for clients that know no other, and only
// then the Release files that refer to them. Finally it removes the indexes that
// no client can still request.
func (r *repository) commit(ctx context.Context, suite string, p *publication) error {
	for _, place := range slices.Sorted(maps.Keys(p.pool)) {
		if err := r.addImmutable(ctx, p.pool[place], place); err != nil {
			return err
		}
	}
	dir := suiteDir(suite)
	for _, f := range p.indexes {
		if err := r.writeFile(path.Join(dir, byHash(listed{name: f.name, sha256: digest(f.data)})), f.data, p.release.date); err != nil {
			return err
		}
	}
	for _, f := range p.indexes {
		if err := r.writeFile(path.Join(dir, f.name), f.data, p.release.date); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.top)) {
		if err := r.writeFile(name, p.top[name], p.release.date); err != nil {
			return err
		}
	}
	if err := r.writeFile(generationPath(suite, p.release.date), p.text, p.release.date); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, f := range []indexFile{{"Release.gpg", p.signature}, {"Release", p.text}, {"InRelease", p.inRelease}} {
		if f.data == nil {
			continue
		}
		if err := r.writeFile(path.Join(dir, f.name), f.data, p.release.date); err != nil {
			return err
		}
	}
	return r.prune(suite, p)
}

// writeFile writes a file atomically and leaves one with the same contents alone.
// The modification time is that of the publish: servers send it to clients, which
// use it to ask for changes.
func (r *repository) writeFile(name string, data []byte, modified time.Time) error {
	if old, err := r.root.ReadFile(name); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return r.replace(name, func(staged string) error {
		f, err := r.root.OpenFile(staged, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
			return err
		}
		return r.root.Chtimes(staged, modified, modified)
	})
}

// replace calls fill with a temporary name in the same directory and renames the
// result to name.
func (r *repository) replace(name string, fill func(staged string) error) error {
	dir := path.Dir(name)
	if err := r.mkdirAll(dir); err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	staged := path.Join(dir, "."+path.Base(name)+".part")
	if err := r.root.RemoveAll(staged); err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	err := fill(staged)
	if err == nil {
		err = r.root.Rename(staged, name)
	}
	// Renaming one link of a file to another of the same file leaves both.
	if err := errors.Join(err, r.root.RemoveAll(staged)); err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	if err := fsync.Dir(r.root, dir); err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	return nil
}

// mkdirAll creates a directory that a web server can read, whatever the umask.
func (r *repository) mkdirAll(dir string) error {
	if _, err := r.root.Stat(dir); err == nil || dir == "." {
		return err
	}
	if err := r.mkdirAll(path.Dir(dir)); err != nil {
		return err
	}
	if err := r.root.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return r.root.Chmod(dir, 0o755)
}

// addImmutable links a file into the repository, or copies it where the file
// system does not support links. The file must never change afterwards.
func (r *repository) addImmutable(ctx context.Context, file, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	there, err := r.has(ctx, file, name)
	if err != nil || there {
		return err
	}
	return r.replace(name, func(staged string) error { return r.linkOrCopy(ctx, file, staged) })
}

// has reports whether the repository already has the file under name. It returns
// ErrVersionConflict if the file there has other contents.
func (r *repository) has(ctx context.Context, file, name string) (bool, error) {
	old, err := r.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("publish %s: %w", name, err)
	}
	published, _, err := hashReader(ctx, old)
	if err := errors.Join(err, old.Close()); err != nil {
		return false, fmt.Errorf("publish %s: %w", name, err)
	}
	wanted, _, err := hashFile(ctx, file)
	if err != nil {
		return false, err
	}
	if published != wanted {
		return false, fmt.Errorf("%w: %s exists, although the suite does not list it: raise the version, or remove the file if an interrupted publish left it", ErrVersionConflict, name)
	}
	return true, nil
}

func (r *repository) linkOrCopy(ctx context.Context, file, staged string) error {
	if os.Link(file, filepath.Join(r.dir, filepath.FromSlash(staged))) == nil {
		return nil
	}
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := r.root.OpenFile(staged, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, ctxio.Reader(ctx, in))
	if err := errors.Join(err, out.Chmod(0o644), out.Sync(), out.Close()); err != nil {
		return err
	}
	return r.root.Chtimes(staged, info.ModTime(), info.ModTime())
}

// generationsDir holds the Release file of each publish that clients may still be
// reading, named by its date in seconds since 1970.
func generationsDir(suite string) string { return path.Join(suiteDir(suite), "generations") }

func generationPath(suite string, date time.Time) string {
	return path.Join(generationsDir(suite), strconv.FormatInt(date.Unix(), 10))
}

// generations reads the Release files of the retained publishes, oldest first.
func (r *repository) generations(suite string) ([]*release, error) {
	entries, err := fs.ReadDir(r.root.FS(), generationsDir(suite))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the earlier publishes: %w", err)
	}
	var out []*release
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // left by an interrupted publish
		}
		text, err := r.root.ReadFile(path.Join(generationsDir(suite), e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read an earlier publish: %w", err)
		}
		parsed, err := parseRelease(text)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrRepository, path.Join(generationsDir(suite), e.Name()), err)
		}
		out = append(out, parsed)
	}
	slices.SortFunc(out, func(a, b *release) int { return a.date.Compare(b.date) })
	return out, nil
}

// prune removes the indexes of publishes that were replaced longer ago than
// p.retention. Those of the previous publish always stay.
func (r *repository) prune(suite string, p *publication) error {
	generations, err := r.generations(suite)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for i, g := range generations {
		if !retained(generations, i, p) {
			continue
		}
		keep[generationPath(suite, g.date)] = true
		for _, f := range g.files {
			keep[path.Join(suiteDir(suite), byHash(f))] = true
		}
	}
	dirs := map[string]bool{generationsDir(suite): true}
	for _, f := range p.release.files {
		dirs[path.Join(suiteDir(suite), path.Dir(byHash(f)))] = true
	}
	for dir := range dirs {
		entries, err := fs.ReadDir(r.root.FS(), dir)
		if err != nil {
			return fmt.Errorf("remove the indexes of earlier publishes: %w", err)
		}
		for _, e := range entries {
			if name := path.Join(dir, e.Name()); !keep[name] {
				err = errors.Join(err, r.root.Remove(name))
			}
		}
		if err != nil {
			return fmt.Errorf("remove the indexes of earlier publishes: %w", err)
		}
	}
	return nil
}

// retained reports whether clients may still be reading a publish. A generation
// between the last two publishes was interrupted, so no client ever saw it.
func retained(generations []*release, i int, p *publication) bool {
	g, now := generations[i], p.release.date
	switch {
	case g.date.Equal(now) || p.previous != nil && g.date.Equal(p.previous.date):
		return true
	case p.previous == nil || g.date.After(p.previous.date):
		return false
	}
	return !generations[i+1].date.Before(now.Add(-p.retention))
}
