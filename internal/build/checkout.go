package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// errUncommitted reports that a checkout differs from its commit.
var errUncommitted = errors.New("a signed release must be built from a commit, and this checkout differs from its commit")

// trackedFiles lists the regular files of the checkout that git tracks: the files
// that may be published. Other files in a checkout, such as keys, may not.
func (s *Session) trackedFiles(ctx context.Context, root string) ([]string, error) {
	names, err := s.listFiles(ctx, root, "--cached")
	return slices.DeleteFunc(names, func(name string) bool {
		info, err := os.Lstat(filepath.Join(root, name))
		return err != nil || !info.Mode().IsRegular()
	}), err
}

// listFiles returns the existing files that `git ls-files` lists with args,
// without the outputs of a build.
func (s *Session) listFiles(ctx context.Context, root string, args ...string) ([]string, error) {
	out, err := git(ctx, root, nil, append([]string{"ls-files", "-z"}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("list the files of the checkout: %w", err)
	}
	return slices.DeleteFunc(splitNUL(out), func(name string) bool {
		return s.isBuildOutput(root, name) || !exists(filepath.Join(root, name)) // deleted, not yet committed
	}), nil
}

// uncommittedFiles lists the files in which the checkout differs from its commit,
// untracked files included, ignored files excluded.
func (s *Session) uncommittedFiles(ctx context.Context, root string) ([]string, error) {
	out, err := git(ctx, root, nil, "--no-optional-locks", "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
	if err != nil {
		return nil, fmt.Errorf("compare the checkout with its commit: %w", err)
	}
	var names []string
	for _, line := range splitNUL(out) {
		if name := line[min(len(line), len("XY ")):]; !s.isBuildOutput(root, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// revision returns the commit of the checkout, or "" if the checkout differs from
// the commit.
func (s *Session) revision(ctx context.Context, root string) (string, error) {
	if err := s.checkCommitted(ctx, root); err != nil {
		return "", err
	}
	names, err := s.uncommittedFiles(ctx, root)
	if err != nil {
		return "", err
	}
	if len(names) > 0 {
		return "", s.printf("provenance: it names no commit, because the checkout differs from its commit:\n  %s", joinLines(names))
	}
	out, err := git(ctx, root, nil, "rev-parse", "HEAD")
	if err != nil {
		return "", fmt.Errorf("read the commit of this checkout: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// checkCommitted rejects a checkout that differs from its commit, if the release
// will be signed.
func (s *Session) checkCommitted(ctx context.Context, root string) error {
	if !s.Settings.Signed() {
		return nil
	}
	names, err := s.uncommittedFiles(ctx, root)
	if err != nil || len(names) == 0 {
		return err
	}
	return fmt.Errorf("%w; commit these files, or move files that do not belong to it, such as keys, out of the checkout:\n  %s", errUncommitted, joinLines(names))
}

// checkGit checks before a build everything that a release reads from git, so that an
// error of git appears at once and not after the compiles.
func (s *Session) checkGit(ctx context.Context, root string) error {
	if _, err := s.sourceDate(ctx, root); err != nil {
		return err
	}
	if _, err := s.trackedFiles(ctx, root); err != nil {
		return err
	}
	if _, err := git(ctx, root, nil, "rev-parse", "HEAD"); err != nil {
		return fmt.Errorf("read the commit of this checkout: %w", err)
	}
	_, err := s.uncommittedFiles(ctx, root)
	return err
}

// isBuildOutput reports whether name, relative to the root, is an output of a
// build: the dist directory, the cache or the published directory.
func (s *Session) isBuildOutput(root, name string) bool {
	dist := s.dist(root)
	for _, dir := range []string{dist, dist + partSuffix, dist + oldSuffix, s.Settings.Cache, s.Settings.Published} {
		if dir != "" && !isWithin(dir, root) && isWithin(dir, filepath.Join(root, name)) {
			return true
		}
	}
	return false
}

// isWithin reports whether name is dir or below it; both are absolute.
func isWithin(dir, name string) bool {
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// copyCheckout copies the files that git tracks or would track into a clone at
// the same commit with the same index: the provenance names the commit, and the
// module contains the tracked files. Untracked files are copied because they may
// be compiled.
func (s *Session) copyCheckout(ctx context.Context, root, to string) error {
	if _, err := git(ctx, root, nil, "clone", "--quiet", "--no-checkout", root, to); err != nil {
		return fmt.Errorf("clone the checkout: %w", err)
	}
	index, err := git(ctx, root, nil, "ls-files", "-z", "--stage")
	if err != nil {
		return fmt.Errorf("read the index of the checkout: %w", err)
	}
	if _, err := git(ctx, to, bytes.NewReader(index), "update-index", "-z", "--index-info"); err != nil {
		return fmt.Errorf("write the index of the copy: %w", err)
	}
	names, err := s.listFiles(ctx, root, "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := copyFileOrLink(filepath.Join(root, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}

// copyFileOrLink copies a regular file or a symbolic link; git tracks no other
// types.
func copyFileOrLink(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { //nolint:gosec // a checkout
		return err
	}
	switch {
	case info.Mode().IsRegular():
		return copyFile(from, to, info.Mode().Perm())
	case info.Mode()&os.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	return nil
}

// splitNUL splits the output of a command that terminates names by NUL bytes.
func splitNUL(out []byte) []string {
	return slices.DeleteFunc(strings.Split(string(out), "\x00"), func(name string) bool { return name == "" })
}

// joinLines joins the first lines and counts the others.
func joinLines(lines []string) string {
	const most = 20
	if len(lines) > most {
		lines = append(slices.Clip(lines[:most]), fmt.Sprintf("and %d more", len(lines)-most))
	}
	return strings.Join(lines, "\n  ")
}
