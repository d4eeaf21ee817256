package apt

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Mirror updates the repository at to, which clients may be using, to the state
// of the one at from, in the same order as Publish. It needs no key, because it
// copies the signatures. The repository at to must be empty or an earlier state of
// the one at from, so that no publish is undone.
func Mirror(ctx context.Context, from, to string) error {
	src, err := openExisting(ctx, from)
	if err != nil {
		return err
	}
	defer func() { _ = src.close() }()
	if err := os.MkdirAll(to, 0o755); err != nil {
		return fmt.Errorf("create the repository: %w", err)
	}
	dst, err := src.openOther(ctx, to)
	if err != nil {
		return err
	}
	return errors.Join(mirror(ctx, src, dst), dst.close())
}

// CheckMirror returns the error that Mirror would return before it writes
// anything.
func CheckMirror(ctx context.Context, from, to string) error {
	src, err := openExisting(ctx, from)
	if err != nil {
		return err
	}
	defer func() { _ = src.close() }()
	if _, err := os.Stat(to); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	dst, err := src.openOther(ctx, to)
	if err != nil {
		return err
	}
	return errors.Join(checkMirror(ctx, src, dst), dst.close())
}

// openOther opens the repository in dir. It rejects r's own directory: the
// publisher would wait for its own lock.
func (r *repository) openOther(ctx context.Context, dir string) (*repository, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("resolve the repository's path: %w", err)
	}
	own, err := r.root.Stat(".")
	if err != nil {
		return nil, fmt.Errorf("open the repository: %w", err)
	}
	other, err := os.Stat(abs)
	if err != nil {
		return nil, fmt.Errorf("open the repository: %w", err)
	}
	if os.SameFile(own, other) {
		return nil, fmt.Errorf("%w: %s cannot be mirrored onto itself", ErrOptions, abs)
	}
	return openRepository(ctx, abs)
}

func openExisting(ctx context.Context, dir string) (*repository, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("resolve the repository's path: %w", err)
	}
	if _, err := os.Stat(filepath.Join(abs, "dists")); err != nil {
		return nil, fmt.Errorf("%w: there is no repository in %s: %w", ErrRepository, abs, err)
	}
	return openRepository(ctx, abs)
}

// checkMirror checks that the mirror would neither undo a publish that clients of
// dst have seen nor change a file that must not change.
func checkMirror(ctx context.Context, src, dst *repository) error {
	suites, err := fs.ReadDir(src.root.FS(), "dists")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRepository, err)
	}
	for _, e := range suites {
		if err := checkDescends(src, dst, e.Name()); err != nil {
			return err
		}
	}
	files, err := src.files()
	if err != nil {
		return err
	}
	for _, name := range files {
		if writeOrder(name) > lastImmutable {
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := dst.has(ctx, filepath.Join(src.dir, filepath.FromSlash(name)), name); err != nil {
			return err
		}
	}
	return nil
}

func mirror(ctx context.Context, src, dst *repository) error {
	if err := checkMirror(ctx, src, dst); err != nil {
		return err
	}
	files, err := src.files()
	if err != nil {
		return err
	}
	for _, name := range files {
		file := filepath.Join(src.dir, filepath.FromSlash(name))
		if writeOrder(name) <= lastImmutable {
			err = dst.addImmutable(ctx, file, name)
		} else {
			err = dst.replace(name, func(staged string) error { return dst.linkOrCopy(ctx, file, staged) })
		}
		if err != nil {
			return err
		}
	}
	return dst.removeIndexesExcept(files)
}

// lastImmutable is the highest writeOrder of files that never change.
const lastImmutable = 1

// writeOrder ranks files by when clients may see them.
func writeOrder(name string) int {
	switch base := path.Base(name); {
	case strings.HasPrefix(name, "pool/"):
		return 0
	case strings.Contains(name, "/by-hash/"):
		return 1
	case base == "Release.gpg":
		return 3
	case base == "Release":
		return 4
	case base == "InRelease":
		return 5
	}
	return 2
}

// files lists the files of the repository in the order in which they must be
// written.
func (r *repository) files() ([]string, error) {
	var files []string
	err := fs.WalkDir(r.root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil || e.IsDir():
			return err
		case !e.Type().IsRegular():
			return fmt.Errorf("%s is not a regular file", name)
		case !strings.HasPrefix(e.Name(), "."):
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrRepository, r.dir, err)
	}
	slices.SortFunc(files, func(a, b string) int {
		return cmp.Or(cmp.Compare(writeOrder(a), writeOrder(b)), strings.Compare(a, b))
	})
	return files, nil
}

// checkDescends checks that the state of dst that clients see is that of src or
// an earlier one.
func checkDescends(src, dst *repository, suite string) error {
	text, _, err := dst.currentRelease(suite)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrRepository, dst.dir, err)
	}
	current, err := parseRelease(text)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrRepository, dst.dir, err)
	}
	known, err := src.root.ReadFile(generationPath(suite, current.date))
	if err != nil || !bytes.Equal(bytes.TrimSpace(known), bytes.TrimSpace(text)) {
		return fmt.Errorf("%w: %s does not contain the publish of %s in %s: repeat the release on top of that repository",
			ErrRepository, src.dir, current.date.Format(dateLayout), dst.dir)
	}
	return nil
}

// removeIndexesExcept removes the indexes and Release files of earlier publishes
// that the mirrored repository no longer has. Packages stay.
func (r *repository) removeIndexesExcept(keep []string) error {
	have, err := r.files()
	if err != nil {
		return err
	}
	for _, name := range have {
		if slices.Contains(keep, name) || !strings.Contains(name, "/by-hash/") && !strings.Contains(name, "/generations/") {
			continue
		}
		if err := r.root.Remove(name); err != nil {
			return fmt.Errorf("remove an index of an earlier publish: %w", err)
		}
	}
	return nil
}
