package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

// Suffixes of the directories beside the dist directory while it is replaced.
const (
	partSuffix = ".part" // the new delivery, not yet complete
	oldSuffix  = ".old"  // the previous delivery
)

// commandName is the one file that every delivery has.
const commandName = "go-rocm"

// deliverables are the patterns of the names in a delivery. A directory with any
// other name in it is never replaced: it may be anything.
var deliverables = []string{
	commandName, "llama-*.tar.zst", "go-rocm*.deb", "go-rocm-*.oci.tar", "go-rocm.*.json", "provenance*.json", "go-rocm-alerts.yml", "go-rocm-dashboard.json",
	release.ChecksumsFile, release.ChecksumsFile + ".*", aptDir, proxyDir,
}

// unfinished are the further patterns of an interrupted delivery.
var unfinished = []string{workPrefix + "*", "." + release.ChecksumsFile + ".part"}

// workPrefix begins the names of temporary directories in a delivery.
const workPrefix = ".module-"

// Files of a delivery that record what has been published.
var (
	releaseFile   = filepath.Join(aptDir, "dists", aptSuite, "Release")
	inReleaseFile = filepath.Join(aptDir, "dists", aptSuite, "InRelease")
)

var (
	// errNotDelivery reports that a directory is not a delivery and must not be replaced.
	errNotDelivery = errors.New("this is not a delivery of a build, so it is not replaced: set GOROCM_DIST to another directory, or move this one away")
	// errWouldLose reports that a delivery would remove the only record of what has been published.
	errWouldLose = errors.New("this is the only record of what has been published: run `mage publish DIR` and set GOROCM_PUBLISHED=DIR, set GOROCM_DIST to another directory, or move this one away")
)

// delivery is the state that the steps of a delivery share.
type delivery struct {
	root, dir, version string
	packed             []*recipe.Packed
	page               *recipe.Page // in the command; nil: none
}

// step adds something to a delivery, or checks it.
type step func(context.Context, *delivery) error

// deliver fills a new directory by the steps and renames it to the dist
// directory when all of them have succeeded, so that the dist directory is always
// complete. records are the files of the new delivery that record what has been
// published.
func (s *Session) deliver(ctx context.Context, records []string, steps ...step) error {
	root, err := Root()
	if err != nil {
		return err
	}
	d := &delivery{root: root, dir: s.dist(root) + partSuffix}
	if d.version, err = s.Version(root); err != nil {
		return err
	}
	if err := s.checkReplaceable(root, oneOf(records...)); err != nil {
		return err
	}
	if err := s.prepare(ctx, buildPrograms); err != nil {
		return err
	}
	if err := os.RemoveAll(d.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(d.dir, 0o755); err != nil { //nolint:gosec // deliverables are public
		return err
	}
	for _, step := range append(slices.Clip(steps), s.replaceDist) {
		if err := step(ctx, d); err != nil {
			return errors.Join(err, os.RemoveAll(d.dir))
		}
	}
	return s.list(s.dist(root))
}

// list prints the entries of a delivery with their sizes, a directory with the
// size of all files below it.
func (s *Session) list(dir string) error {
	names, err := filesBelow(dir)
	if err != nil {
		return err
	}
	sizes := map[string]int64{}
	for _, name := range names {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		top, _, below := strings.Cut(name, "/")
		if below {
			top += "/"
		}
		sizes[top] += info.Size()
	}
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		if err := s.printf("  %10.1f MB  %s", float64(sizes[name])/1e6, s.Settings.Dist+"/"+name); err != nil {
			return err
		}
	}
	return nil
}

// dist returns the absolute path of the dist directory.
func (s *Session) dist(root string) string {
	if filepath.IsAbs(s.Settings.Dist) {
		return filepath.Clean(s.Settings.Dist)
	}
	return filepath.Join(root, s.Settings.Dist)
}

// checkReplaceable checks that the dist directory may be replaced by a delivery;
// has reports whether the new delivery has a file or directory. It first undoes a
// replacement that was interrupted.
func (s *Session) checkReplaceable(root string, has func(name string) bool) error {
	dist := s.dist(root)
	if err := errors.Join(checkDelivery(dist), checkDelivery(dist+oldSuffix), checkNames(dist+partSuffix, append(unfinished, deliverables...))); err != nil {
		return err
	}
	if !exists(dist) && exists(dist+oldSuffix) {
		if err := os.Rename(dist+oldSuffix, dist); err != nil {
			return err
		}
		if err := s.printf("restored %s: an earlier build was interrupted while it replaced the directory", s.Settings.Dist); err != nil {
			return err
		}
	}
	published, err := s.publishedRoot(root)
	if err != nil {
		return err
	}
	replaces := func(suffix string) bool { return published != "" && isWithin(dist+suffix, published) }
	if !slices.ContainsFunc([]string{"", partSuffix, oldSuffix}, replaces) {
		return nil
	}
	for _, name := range []string{inReleaseFile, releaseFile, proxyDir} {
		if exists(filepath.Join(published, name)) && !has(name) {
			return fmt.Errorf("%s would be replaced, and with it %s: %w", published, name, errWouldLose)
		}
	}
	return nil
}

// oneOf returns a function that reports whether its argument is one of names.
func oneOf(names ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(names, name) }
}

// publicationRecords lists the files and directories of a release that record
// what has been published.
func (s *Session) publicationRecords() []string {
	switch {
	case s.Settings.AptKeyFile != "" || s.Settings.AptKey != "":
		return []string{proxyDir, releaseFile, inReleaseFile}
	case s.Settings.AptUnsigned:
		return []string{proxyDir, releaseFile}
	}
	return []string{proxyDir}
}

// replaceDist replaces the dist directory by a complete delivery.
func (s *Session) replaceDist(_ context.Context, d *delivery) error {
	if err := checkDelivery(d.dir); err != nil {
		return err
	}
	has := func(name string) bool { return exists(filepath.Join(d.dir, name)) }
	if err := s.checkReplaceable(d.root, has); err != nil {
		return err
	}
	dist := s.dist(d.root)
	if err := os.RemoveAll(dist + oldSuffix); err != nil {
		return err
	}
	if err := os.Rename(dist, dist+oldSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(d.dir, dist); err != nil {
		return err // the next build restores the previous delivery
	}
	return os.RemoveAll(dist + oldSuffix)
}

// checkDelivery rejects a directory that is neither empty nor a delivery. The
// directory may be missing.
func checkDelivery(dir string) error {
	if err := checkNames(dir, deliverables); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err == nil && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == commandName && e.Type().IsRegular() }) {
		err = fmt.Errorf("%s contains no %s: %w", dir, commandName, errNotDelivery)
	}
	return err
}

// checkNames rejects a directory with an entry that no pattern matches. The
// directory may be missing.
func checkNames(dir string, patterns []string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", err, errNotDelivery)
	}
	for _, e := range entries {
		matches := func(pattern string) bool {
			ok, err := filepath.Match(pattern, e.Name())
			return ok && err == nil && strings.HasPrefix(pattern, ".") == strings.HasPrefix(e.Name(), ".")
		}
		if !slices.ContainsFunc(patterns, matches) {
			return fmt.Errorf("%s contains %s: %w", dir, e.Name(), errNotDelivery)
		}
	}
	return nil
}

// removeDist removes the dist directory and the remains of an interrupted
// delivery.
func (s *Session) removeDist(root string) error {
	if err := s.checkReplaceable(root, oneOf()); err != nil {
		return err
	}
	for _, suffix := range []string{"", partSuffix, oldSuffix} {
		if err := os.RemoveAll(s.dist(root) + suffix); err != nil {
			return err
		}
	}
	return nil
}

// copyAll copies the files of a directory, except for hidden ones.
func copyAll(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err := copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// copyFile copies a file to a new one with the given mode, whatever the umask is.
func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Chmod(mode), out.Close()); err != nil {
		return fmt.Errorf("copy %s: %w", filepath.Base(from), err)
	}
	return nil
}

// writePublic writes a deliverable with mode 0644, whatever the umask is.
func writePublic(name string, b []byte) error {
	if err := os.WriteFile(name, b, 0o600); err != nil {
		return err
	}
	return os.Chmod(name, 0o644) //nolint:gosec // anybody may read what is published
}

// filesBelow returns the slash-separated names of the regular files below dir.
func filesBelow(dir string) ([]string, error) {
	var files []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files = append(files, name)
		}
		return err
	})
	return files, err
}

// findOne returns the one file in dir that matches a pattern.
func findOne(dir, pattern string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%s contains %d files that match %s, want one: %v", dir, len(found), pattern, found)
	}
	return found[0], nil
}

// exists reports whether a file, directory or link exists.
func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}
