package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// errUncommitted says that a checkout is not what its commit says.
var errUncommitted = errors.New("a release that is signed is one of a commit, and this checkout differs from its own")

// tracked lists the regular files of the checkout that git tracks: what may be
// given away. What else lies in a checkout, such as a key, is nobody's business.
func (s *Session) tracked(ctx context.Context, root string) ([]string, error) {
	names, err := s.listed(ctx, root, "--cached")
	return slices.DeleteFunc(names, func(name string) bool {
		info, err := os.Lstat(filepath.Join(root, name))
		return err != nil || !info.Mode().IsRegular()
	}), err
}

// listed gives the files of the checkout that `git ls-files` lists by args and
// that are there, apart from what a build itself puts into the checkout.
func (s *Session) listed(ctx context.Context, root string, args ...string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root, "ls-files", "-z"}, args...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("list the checkout: %w", err)
	}
	return slices.DeleteFunc(zeroSeparated(out), func(name string) bool {
		return s.madeHere(root, name) || !exists(filepath.Join(root, name)) // deleted, not yet committed
	}), nil
}

// uncommitted lists the files in which the checkout differs from its commit,
// files that git does not know among them; those that it ignores are not.
func (s *Session) uncommitted(ctx context.Context, root string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "git", "-C", root, "--no-optional-locks", "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all").Output()
	if err != nil {
		return nil, fmt.Errorf("compare the checkout with its commit: %w", err)
	}
	var names []string
	for _, line := range zeroSeparated(out) {
		if name := line[min(len(line), len("XY ")):]; !s.madeHere(root, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// revision is the commit that the checkout is of, empty if it differs from it.
func (s *Session) revision(ctx context.Context, root string) (string, error) {
	if err := s.committed(ctx, root); err != nil {
		return "", err
	}
	names, err := s.uncommitted(ctx, root)
	if err != nil {
		return "", err
	}
	if len(names) > 0 {
		return "", s.say("provenance: it names no commit, since the checkout differs from its own:\n  %s", joinLines(names))
	}
	out, err := exec.CommandContext(ctx, "git", "-C", root, "rev-parse", "HEAD").Output()
	if err != nil {
		return "", fmt.Errorf("ask git for the revision of this checkout: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// committed refuses a checkout that is not what its commit says, if the release
// is to be signed.
func (s *Session) committed(ctx context.Context, root string) error {
	if !s.Settings.Signed() {
		return nil
	}
	names, err := s.uncommitted(ctx, root)
	if err != nil || len(names) == 0 {
		return err
	}
	return fmt.Errorf("%w; commit these, or move out of the checkout what does not belong to it, as keys:\n  %s", errUncommitted, joinLines(names))
}

// madeHere says whether name, from the root, is what a build itself puts there:
// deliverables, the cache, what is published.
func (s *Session) madeHere(root, name string) bool {
	dist := s.dist(root)
	for _, dir := range []string{dist, dist + partMark, dist + oldMark, s.Settings.Cache, s.Settings.Published} {
		if dir != "" && !below(dir, root) && below(dir, filepath.Join(root, name)) {
			return true
		}
	}
	return false
}

// below says whether name is dir or in it; both are absolute.
func below(dir, name string) bool {
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// copyCheckout copies what git tracks or would track, into a repository at the
// same revision that tracks the same: the provenance names the one, and modules
// have the other. What is not tracked may be compiled all the same.
func (s *Session) copyCheckout(ctx context.Context, root, to string) error {
	if out, err := exec.CommandContext(ctx, "git", "clone", "--quiet", "--no-checkout", root, to).CombinedOutput(); err != nil {
		return fmt.Errorf("clone the checkout: %w\n%s", err, out)
	}
	index, err := exec.CommandContext(ctx, "git", "-C", root, "ls-files", "-z", "--stage").Output()
	if err != nil {
		return fmt.Errorf("list the checkout: %w", err)
	}
	track := exec.CommandContext(ctx, "git", "-C", to, "update-index", "-z", "--index-info")
	track.Stdin = bytes.NewReader(index)
	if out, err := track.CombinedOutput(); err != nil {
		return fmt.Errorf("track the same files: %w\n%s", err, out)
	}
	names, err := s.listed(ctx, root, "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := copySource(filepath.Join(root, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}

// copySource copies a file or link of a checkout; other kinds git does not know.
func copySource(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { //nolint:gosec // a checkout
		return err
	}
	switch {
	case info.Mode().IsRegular():
		return copyInto(from, to, info.Mode().Perm())
	case info.Mode()&os.ModeSymlink != 0:
		goal, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(goal, to)
	}
	return nil
}

// zeroSeparated takes the output of a command apart that ends names by zeros.
func zeroSeparated(out []byte) []string {
	return slices.DeleteFunc(strings.Split(string(out), "\x00"), func(name string) bool { return name == "" })
}
