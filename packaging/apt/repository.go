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
	"time"

	"github.com/gofrs/flock"

	"forge.lthn.ai/core/go-rocm/internal/deb822"
)

// repository is the directory of a repository, locked by one publisher. Names in
// it are slash-separated and relative to it.
type repository struct {
	dir  string
	root *os.Root
	lock *flock.Flock
}

// lockPollInterval is how often a publisher retries to lock a repository.
const lockPollInterval = 50 * time.Millisecond

// openRepository waits for other publishers and locks the directory. The lock is
// on the directory itself, so clients see no lock file.
func openRepository(ctx context.Context, dir string) (*repository, error) {
	lock := flock.New(dir, flock.SetFlag(os.O_RDONLY))
	if ok, err := lock.TryLockContext(ctx, lockPollInterval); err != nil || !ok {
		return nil, fmt.Errorf("wait for another publish into %s: %w", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the repository: %w", err), lock.Close())
	}
	return &repository{dir: dir, root: root, lock: lock}, nil
}

func (r *repository) close() error { return errors.Join(r.root.Close(), r.lock.Close()) }

func suiteDir(suite string) string { return path.Join("dists", suite) }

// readSuite reads the published state of a suite. It verifies everything from the
// signature down to the packages, because the next publish signs the result again.
func (r *repository) readSuite(ctx context.Context, name string, keys *Keys) (*suite, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: suite %s: "+format, append([]any{ErrRepository, r.dir, name}, args...)...)
	}
	text, signed, err := r.currentRelease(name)
	if errors.Is(err, fs.ErrNotExist) {
		return &suite{contents: contents{}}, nil
	}
	switch {
	case err != nil:
		return nil, bad("%w", err)
	case !signed && keys != nil:
		return nil, bad("it is unsigned, so changes to it cannot be detected: publish into a new directory")
	case signed && keys == nil:
		return nil, bad("it is signed, and this publish would make it unsigned: set the key")
	}
	rel, err := parseRelease(text)
	if err != nil {
		return nil, bad("%w", err)
	}
	if signed {
		inRelease, err := r.root.ReadFile(path.Join(suiteDir(name), "InRelease"))
		if err != nil {
			return nil, bad("%w", err)
		}
		if text, err = keys.verifyClearSigned(inRelease, rel.date); err != nil {
			return nil, bad("InRelease: %w", err)
		}
		if rel, err = parseRelease(text); err != nil {
			return nil, bad("%w", err)
		}
	}
	s, err := r.readIndexes(name, rel)
	if err != nil {
		return nil, bad("%w", err)
	}
	if err := r.verifyPool(ctx, s.packages); err != nil {
		return nil, bad("%w", err)
	}
	return s, nil
}

// currentRelease returns the Release file that clients use: the text of
// InRelease, whose signature it does not verify, or the file Release of an
// unsigned repository. The two may differ after an interrupted publish.
func (r *repository) currentRelease(suite string) (text []byte, signed bool, err error) {
	inRelease, err := r.root.ReadFile(path.Join(suiteDir(suite), "InRelease"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		text, err = r.root.ReadFile(path.Join(suiteDir(suite), "Release"))
		return text, false, err
	case err != nil:
		return nil, false, err
	}
	text, err = clearSignedText(inRelease)
	return text, true, err
}

func (r *repository) readIndexes(name string, rel *release) (*suite, error) {
	index := func(file string) ([]byte, error) {
		want, ok := rel.file(file)
		if !ok {
			return nil, fmt.Errorf("the Release file does not list %s", file)
		}
		b, err := r.root.ReadFile(path.Join(suiteDir(name), byHash(want)))
		if err != nil {
			return nil, err
		}
		if digest(b) != want.sha256 {
			return nil, fmt.Errorf("%s does not match the Release file", file)
		}
		return b, nil
	}
	text, err := index(packagesIndex)
	if err != nil {
		return nil, err
	}
	s := &suite{release: rel}
	if s.packages, err = deb822.Parse(bytes.NewReader(text)); err != nil {
		return nil, fmt.Errorf("packages: %w", err)
	}
	if text, err = index(contentsIndex); err != nil {
		return nil, err
	}
	s.contents, err = parseContents(bytes.NewReader(text))
	return s, err
}

// byHash returns the path of a listed file for clients that request it by digest.
func byHash(f listed) string {
	return path.Join(path.Dir(f.name), "by-hash", "SHA256", f.sha256)
}

func (r *repository) verifyPool(ctx context.Context, packages []deb822.Paragraph) error {
	for _, p := range packages {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := p.Get("Filename")
		if name != poolPath(p) || !fs.ValidPath(name) {
			return fmt.Errorf("package %s: its path %q is not in the pool", identity(p), name)
		}
		f, err := r.root.Open(name)
		if err != nil {
			return err
		}
		sum, size, err := hashReader(ctx, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		if sum != p.Get("SHA256") || strconv.FormatInt(size, 10) != p.Get("Size") {
			return fmt.Errorf("%s has changed since it was published", name)
		}
	}
	return nil
}
