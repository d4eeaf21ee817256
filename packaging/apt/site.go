package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"

	"github.com/gofrs/flock"
)

// site is a repository's folder, held by one publisher at a time. Names in it
// are slash-separated and relative to it.
type site struct {
	dir  string
	root *os.Root
	lock *flock.Flock
}

// openSite waits for other publishers and then holds the folder. The lock is on
// the folder itself, so that nothing is left for clients to see.
func openSite(ctx context.Context, dir string) (*site, error) {
	lock := flock.New(dir, flock.SetFlag(os.O_RDONLY))
	if ok, err := lock.TryLockContext(ctx, lockPoll); err != nil || !ok {
		return nil, fmt.Errorf("wait for another publish into %s: %w", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the repository: %w", err), lock.Close())
	}
	return &site{dir: dir, root: root, lock: lock}, nil
}

func (s *site) close() error { return errors.Join(s.root.Close(), s.lock.Close()) }

func suiteDir(suite string) string { return path.Join("dists", suite) }

// read gives what the repository offers now. Everything is checked on the way
// from the signature down to the packages: what is published again is signed
// again, and must not have been changed meanwhile.
func (s *site) read(ctx context.Context, suite string, keys *Keys) (*state, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: suite %s: "+format, append([]any{ErrRepository, s.dir, suite}, args...)...)
	}
	text, signed, err := s.current(suite)
	if errors.Is(err, fs.ErrNotExist) {
		return &state{contents: contents{}}, nil
	}
	switch {
	case err != nil:
		return nil, bad("%w", err)
	case !signed && keys != nil:
		return nil, bad("it is not signed, so nobody can tell what was changed in it: publish into a new folder")
	case signed && keys == nil:
		return nil, bad("it is signed and would no longer be: give the key")
	}
	r, err := parseRelease(text)
	if err != nil {
		return nil, bad("%w", err)
	}
	if signed {
		whole, err := s.root.ReadFile(path.Join(suiteDir(suite), "InRelease"))
		if err != nil {
			return nil, bad("%w", err)
		}
		if text, err = keys.open(whole, r.date); err != nil {
			return nil, bad("InRelease: %w", err)
		}
		if r, err = parseRelease(text); err != nil {
			return nil, bad("%w", err)
		}
	}
	st, err := s.readIndexes(suite, r)
	if err != nil {
		return nil, bad("%w", err)
	}
	if err := s.checkPool(ctx, st.packages); err != nil {
		return nil, bad("%w", err)
	}
	return st, nil
}

// current gives the Release file that clients go by: what InRelease holds, which
// is not verified here, and without signatures Release itself. After a publish
// that was cut short the two may differ.
func (s *site) current(suite string) (text []byte, signed bool, err error) {
	whole, err := s.root.ReadFile(path.Join(suiteDir(suite), "InRelease"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		text, err = s.root.ReadFile(path.Join(suiteDir(suite), "Release"))
		return text, false, err
	case err != nil:
		return nil, false, err
	}
	text, err = signedText(whole)
	return text, true, err
}

func (s *site) readIndexes(suite string, r *release) (*state, error) {
	index := func(name string) ([]byte, error) {
		want, ok := r.file(name)
		if !ok {
			return nil, fmt.Errorf("the Release file names no %s", name)
		}
		b, err := s.root.ReadFile(path.Join(suiteDir(suite), byHash(want)))
		if err != nil {
			return nil, err
		}
		if digest(b) != want.sha256 {
			return nil, fmt.Errorf("%s is not what the Release file says", name)
		}
		return b, nil
	}
	text, err := index(path.Join(component, "binary-"+architecture, "Packages"))
	if err != nil {
		return nil, err
	}
	st := &state{release: r}
	if st.packages, err = parse(bytes.NewReader(text)); err != nil {
		return nil, fmt.Errorf("packages: %w", err)
	}
	if text, err = index(path.Join(component, "Contents-"+architecture)); err != nil {
		return nil, err
	}
	st.contents, err = parseContents(bytes.NewReader(text))
	return st, err
}

// byHash is where a listed file lies for clients that ask by digest.
func byHash(f listed) string {
	return path.Join(path.Dir(f.name), "by-hash", "SHA256", f.sha256)
}

func (s *site) checkPool(ctx context.Context, packages []paragraph) error {
	for _, p := range packages {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := p.get("Filename")
		if name != poolPlace(p) || !fs.ValidPath(name) {
			return fmt.Errorf("package %s lies at %q, not in the pool", identity(p), name)
		}
		f, err := s.root.Open(name)
		if err != nil {
			return err
		}
		sum, size, err := measureReader(ctx, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		if sum != p.get("SHA256") || strconv.FormatInt(size, 10) != p.get("Size") {
			return fmt.Errorf("%s was changed since it was published", name)
		}
	}
	return nil
}
