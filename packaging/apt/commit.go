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
)

// lockPoll is how often a publisher asks whether another one has ended.
const lockPoll = 50 * time.Millisecond

// publication is everything that a publish writes.
type publication struct {
	release              *release
	text                 []byte // Release
	inRelease, signature []byte // nil where nothing is signed
	indexes              []indexFile
	pool                 map[string]string // place: file to bring there
	top                  map[string][]byte // for the administrator, by name
	keep                 time.Duration
	before               *release
}

// commit writes in the order in which clients may see it: packages, indexes
// under their digests, indexes under their names for clients that know no other,
// and only then what points to them. At last it removes what no client can
// still be asking for.
func (s *site) commit(ctx context.Context, suite string, p *publication) error {
	for _, place := range slices.Sorted(maps.Keys(p.pool)) {
		if err := s.bring(ctx, p.pool[place], place); err != nil {
			return err
		}
	}
	dir := suiteDir(suite)
	for _, f := range p.indexes {
		if err := s.put(path.Join(dir, byHash(listed{name: f.name, sha256: digest(f.data)})), f.data, p.release.date); err != nil {
			return err
		}
	}
	for _, f := range p.indexes {
		if err := s.put(path.Join(dir, f.name), f.data, p.release.date); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.top)) {
		if err := s.put(name, p.top[name], p.release.date); err != nil {
			return err
		}
	}
	if err := s.put(generationPath(suite, p.release.date), p.text, p.release.date); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, f := range []indexFile{{"Release.gpg", p.signature}, {"Release", p.text}, {"InRelease", p.inRelease}} {
		if f.data == nil {
			continue
		}
		if err := s.put(path.Join(dir, f.name), f.data, p.release.date); err != nil {
			return err
		}
	}
	return s.prune(suite, p)
}

// put makes a file whole or not at all. One that is there with the same bytes is
// left alone. Its time is that of the publish: servers tell it to clients, which
// ask whether there is something newer.
func (s *site) put(name string, data []byte, at time.Time) error {
	if old, err := s.root.ReadFile(name); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return s.replace(name, func(staged string) error {
		f, err := s.root.OpenFile(staged, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
			return err
		}
		return s.root.Chtimes(staged, at, at)
	})
}

// replace has a file made beside its place and renames it there.
func (s *site) replace(name string, fill func(staged string) error) error {
	dir := path.Dir(name)
	if err := s.folder(dir); err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	staged := path.Join(dir, "."+path.Base(name)+".part")
	if err := s.root.RemoveAll(staged); err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	err := fill(staged)
	if err == nil {
		err = s.root.Rename(staged, name)
	}
	// Renaming leaves both names where they are links to one file already.
	if err := errors.Join(err, s.root.RemoveAll(staged)); err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	d, err := s.root.Open(dir)
	if err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	return nil
}

// folder makes a folder that a web server can read whatever the umask.
func (s *site) folder(dir string) error {
	if _, err := s.root.Stat(dir); err == nil || dir == "." {
		return err
	}
	if err := s.folder(path.Dir(dir)); err != nil {
		return err
	}
	if err := s.root.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return s.root.Chmod(dir, 0o755)
}

// bring puts a file of this machine to a place where it stays for good: as a
// link where the file system can, else as a copy.
func (s *site) bring(ctx context.Context, file, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	there, err := s.has(ctx, file, name)
	if err != nil || there {
		return err
	}
	return s.replace(name, func(staged string) error { return s.link(ctx, file, staged) })
}

// has says whether a file of this machine is at its place already. Another one
// there is ErrVersionConflict.
func (s *site) has(ctx context.Context, file, name string) (bool, error) {
	old, err := s.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("publish %s: %w", name, err)
	}
	had, _, err := measureReader(ctx, old)
	if err := errors.Join(err, old.Close()); err != nil {
		return false, fmt.Errorf("publish %s: %w", name, err)
	}
	have, _, err := measure(ctx, file)
	if err != nil {
		return false, err
	}
	if had != have {
		return false, fmt.Errorf("%w: %s is there, though the suite does not list it: raise the version, or remove the file if a publish that was cut short left it", ErrVersionConflict, name)
	}
	return true, nil
}

func (s *site) link(ctx context.Context, file, staged string) error {
	if os.Link(file, filepath.Join(s.dir, filepath.FromSlash(staged))) == nil {
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
	out, err := s.root.OpenFile(staged, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, ctxio.Reader(ctx, in))
	if err := errors.Join(err, out.Chmod(0o644), out.Sync(), out.Close()); err != nil {
		return err
	}
	return s.root.Chtimes(staged, info.ModTime(), info.ModTime())
}

// generations is the folder with the Release file of each publish that clients
// may still be following, named by its date in seconds since 1970.
func generations(suite string) string { return path.Join(suiteDir(suite), "generations") }

func generationPath(suite string, date time.Time) string {
	return path.Join(generations(suite), strconv.FormatInt(date.Unix(), 10))
}

// history reads the publishes that are still kept, oldest first.
func (s *site) history(suite string) ([]*release, error) {
	entries, err := fs.ReadDir(s.root.FS(), generations(suite))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the earlier publishes: %w", err)
	}
	var out []*release
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // cut short
		}
		text, err := s.root.ReadFile(path.Join(generations(suite), e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read an earlier publish: %w", err)
		}
		r, err := parseRelease(text)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrRepository, path.Join(generations(suite), e.Name()), err)
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *release) int { return a.date.Compare(b.date) })
	return out, nil
}

// prune removes the indexes of publishes that were replaced longer ago than
// p.keep. The one before this publish always stays.
func (s *site) prune(suite string, p *publication) error {
	history, err := s.history(suite)
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	for i, r := range history {
		if !stays(history, i, p) {
			continue
		}
		kept[generationPath(suite, r.date)] = true
		for _, f := range r.files {
			kept[path.Join(suiteDir(suite), byHash(f))] = true
		}
	}
	dirs := map[string]bool{generations(suite): true}
	for _, f := range p.release.files {
		dirs[path.Join(suiteDir(suite), path.Dir(byHash(f)))] = true
	}
	for dir := range dirs {
		entries, err := fs.ReadDir(s.root.FS(), dir)
		if err != nil {
			return fmt.Errorf("remove what earlier publishes left: %w", err)
		}
		for _, e := range entries {
			if name := path.Join(dir, e.Name()); !kept[name] {
				err = errors.Join(err, s.root.Remove(name))
			}
		}
		if err != nil {
			return fmt.Errorf("remove what earlier publishes left: %w", err)
		}
	}
	return nil
}

// stays tells whether clients may still follow a publish. One between the two
// last ones was cut short: no client ever saw it.
func stays(history []*release, i int, p *publication) bool {
	r, now := history[i], p.release.date
	switch {
	case r.date.Equal(now) || p.before != nil && r.date.Equal(p.before.date):
		return true
	case p.before == nil || r.date.After(p.before.date):
		return false
	}
	return !history[i+1].date.Before(now.Add(-p.keep))
}
