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

// Mirror brings the repository at to, which clients may be using, to the state
// of the one at from, in the order that Publish keeps. It needs no key: what is
// signed was signed before. The repository at to must be empty or one of the
// earlier states of that at from, so that no publish is undone.
func Mirror(ctx context.Context, from, to string) error {
	src, err := openExisting(ctx, from)
	if err != nil {
		return err
	}
	defer func() { _ = src.close() }()
	if err := os.MkdirAll(to, 0o755); err != nil {
		return fmt.Errorf("make the repository: %w", err)
	}
	dst, err := src.openOther(ctx, to)
	if err != nil {
		return err
	}
	return errors.Join(mirror(ctx, src, dst), dst.close())
}

// CheckMirror says whether Mirror would refuse, and writes nothing.
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
	return errors.Join(mirrorable(ctx, src, dst), dst.close())
}

// openOther opens the folder dir, which must be another one: a publisher that
// holds a folder would wait for itself.
func (s *site) openOther(ctx context.Context, dir string) (*site, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the repository: %w", err)
	}
	own, err := s.root.Stat(".")
	if err != nil {
		return nil, fmt.Errorf("find the repository: %w", err)
	}
	other, err := os.Stat(abs)
	if err != nil {
		return nil, fmt.Errorf("find the repository: %w", err)
	}
	if os.SameFile(own, other) {
		return nil, fmt.Errorf("%w: %s cannot be mirrored onto itself", ErrOptions, abs)
	}
	return openSite(ctx, abs)
}

func openExisting(ctx context.Context, dir string) (*site, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the repository: %w", err)
	}
	if _, err := os.Stat(filepath.Join(abs, "dists")); err != nil {
		return nil, fmt.Errorf("%w: %s holds none: %w", ErrRepository, abs, err)
	}
	return openSite(ctx, abs)
}

// mirrorable makes sure that nothing which clients of dst know would be undone or
// get other bytes.
func mirrorable(ctx context.Context, src, dst *site) error {
	suites, err := fs.ReadDir(src.root.FS(), "dists")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRepository, err)
	}
	for _, e := range suites {
		if err := follows(src, dst, e.Name()); err != nil {
			return err
		}
	}
	files, err := src.walk()
	if err != nil {
		return err
	}
	for _, name := range files {
		if order(name) > stayingFiles {
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

func mirror(ctx context.Context, src, dst *site) error {
	if err := mirrorable(ctx, src, dst); err != nil {
		return err
	}
	files, err := src.walk()
	if err != nil {
		return err
	}
	for _, name := range files {
		file := filepath.Join(src.dir, filepath.FromSlash(name))
		if order(name) <= stayingFiles {
			err = dst.bring(ctx, file, name)
		} else {
			err = dst.replace(name, func(staged string) error { return dst.link(ctx, file, staged) })
		}
		if err != nil {
			return err
		}
	}
	return dst.removeOthers(files)
}

// stayingFiles is the last place in the order of files that never change.
const stayingFiles = 1

// order ranks files by when clients may see them.
func order(name string) int {
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

// walk lists a repository's files in the order in which they are to be written.
func (s *site) walk() ([]string, error) {
	var files []string
	err := fs.WalkDir(s.root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil || e.IsDir():
			return err
		case !e.Type().IsRegular():
			return fmt.Errorf("%s is no regular file", name)
		case !strings.HasPrefix(e.Name(), "."):
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrRepository, s.dir, err)
	}
	slices.SortFunc(files, func(a, b string) int {
		return cmp.Or(cmp.Compare(order(a), order(b)), strings.Compare(a, b))
	})
	return files, nil
}

// follows makes sure that what clients of dst see now is an earlier state of
// src, or the same.
func follows(src, dst *site, suite string) error {
	text, _, err := dst.current(suite)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrRepository, dst.dir, err)
	}
	now, err := parseRelease(text)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrRepository, dst.dir, err)
	}
	known, err := src.root.ReadFile(generationPath(suite, now.date))
	if err != nil || !bytes.Equal(bytes.TrimSpace(known), bytes.TrimSpace(text)) {
		return fmt.Errorf("%w: %s does not know the publish of %s that is in %s: make the release anew on top of that repository",
			ErrRepository, src.dir, now.date.Format(dateForm), dst.dir)
	}
	return nil
}

// removeOthers removes the indexes and records that the mirrored repository no
// longer keeps. Packages stay.
func (s *site) removeOthers(keep []string) error {
	have, err := s.walk()
	if err != nil {
		return err
	}
	for _, name := range have {
		if slices.Contains(keep, name) || !strings.Contains(name, "/by-hash/") && !strings.Contains(name, "/generations/") {
			continue
		}
		if err := s.root.Remove(name); err != nil {
			return fmt.Errorf("remove an index of an earlier publish: %w", err)
		}
	}
	return nil
}
