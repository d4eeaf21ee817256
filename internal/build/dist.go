package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/release"
)

// What stands beside the folder for the deliverables while it is replaced.
const (
	partMark = ".part" // the delivery that is being made
	oldMark  = ".old"  // the one before
)

// commandName is the one file that every delivery has.
const commandName = "go-rocm"

// deliverables are the names in a delivery. A folder with another in it is not
// replaced, since it may be anything.
var deliverables = []string{
	commandName, "llama-*.tar.zst", "go-rocm*.deb", "go-rocm-*.oci.tar", "go-rocm.*.json", "provenance*.json",
	release.ChecksumsFile, release.ChecksumsFile + ".*", aptDir, proxyDir,
}

// unfinished are the names that a delivery that was cut short may have too.
var unfinished = []string{workMark + "*", "." + release.ChecksumsFile + ".part"}

// workMark begins the names of folders in a delivery that go when it is whole.
const workMark = ".module-"

// Files of a delivery that tell what is published in it.
var (
	releaseFile   = filepath.Join(aptDir, "dists", aptSuite, "Release")
	inReleaseFile = filepath.Join(aptDir, "dists", aptSuite, "InRelease")
)

var (
	// errNoDelivery says that a folder is not one that a delivery may replace.
	errNoDelivery = errors.New("it is not replaced, since it is no delivery: name another folder in GOROCM_DIST, or move it away")
	// errLost says that a delivery would be the end of what is published.
	errLost = errors.New("nothing else says what is published: run `mage publish DIR` and set GOROCM_PUBLISHED=DIR, name another folder in GOROCM_DIST, or move it away")
)

// dist is the folder for the deliverables, beside which others are made.
func (s *Session) dist(root string) string {
	if filepath.IsAbs(s.Settings.Dist) {
		return filepath.Clean(s.Settings.Dist)
	}
	return filepath.Join(root, s.Settings.Dist)
}

// replaceable makes sure that a delivery may take the place of what is in the
// folder for the deliverables; has says what files and folders it will have. A
// replacement that was cut short is taken back first.
func (s *Session) replaceable(root string, has func(name string) bool) error {
	dist := s.dist(root)
	if err := errors.Join(deliveryOrNothing(dist), deliveryOrNothing(dist+oldMark), onlyNames(dist+partMark, append(unfinished, deliverables...))); err != nil {
		return err
	}
	if !exists(dist) && exists(dist+oldMark) {
		if err := os.Rename(dist+oldMark, dist); err != nil {
			return err
		}
		if err := s.say("%s is again as it was before the build that was cut short", s.Settings.Dist); err != nil {
			return err
		}
	}
	published, err := s.published(root)
	if err != nil {
		return err
	}
	goes := func(mark string) bool { return published != "" && below(dist+mark, published) }
	if !slices.ContainsFunc([]string{"", partMark, oldMark}, goes) {
		return nil
	}
	for _, name := range []string{inReleaseFile, releaseFile, proxyDir} {
		if exists(filepath.Join(published, name)) && !has(name) {
			return fmt.Errorf("%s would go with its %s: %w", published, name, errLost)
		}
	}
	return nil
}

// willHave makes a function for replaceable of names.
func willHave(names ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(names, name) }
}

// lasting are the files and folders of a release that tell what is published.
func (s *Session) lasting() []string {
	switch {
	case s.Settings.AptKeyFile != "" || s.Settings.AptKey != "":
		return []string{proxyDir, releaseFile, inReleaseFile}
	case s.Settings.AptUnsign:
		return []string{proxyDir, releaseFile}
	}
	return []string{proxyDir}
}

// place puts a whole delivery where the one before was.
func (s *Session) place(_ context.Context, d *delivery) error {
	if err := deliveryOrNothing(d.dir); err != nil {
		return err
	}
	has := func(name string) bool { return exists(filepath.Join(d.dir, name)) }
	if err := s.replaceable(d.root, has); err != nil {
		return err
	}
	dist := s.dist(d.root)
	if err := os.RemoveAll(dist + oldMark); err != nil {
		return err
	}
	if err := os.Rename(dist, dist+oldMark); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(d.dir, dist); err != nil {
		return err // the next build takes the one before back
	}
	return os.RemoveAll(dist + oldMark)
}

// deliveryOrNothing refuses a folder in which there is something and no delivery.
func deliveryOrNothing(dir string) error {
	if err := onlyNames(dir, deliverables); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err == nil && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == commandName && e.Type().IsRegular() }) {
		err = fmt.Errorf("%s has no %s in it: %w", dir, commandName, errNoDelivery)
	}
	return err
}

// onlyNames refuses a folder with something else in it than what patterns match.
func onlyNames(dir string, patterns []string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", err, errNoDelivery)
	}
	for _, e := range entries {
		known := func(pattern string) bool {
			ok, err := filepath.Match(pattern, e.Name())
			return ok && err == nil && strings.HasPrefix(pattern, ".") == strings.HasPrefix(e.Name(), ".")
		}
		if !slices.ContainsFunc(patterns, known) {
			return fmt.Errorf("%s has %s in it: %w", dir, e.Name(), errNoDelivery)
		}
	}
	return nil
}

// clean removes the deliverables and what a delivery left that was cut short.
func (s *Session) clean(root string) error {
	if err := s.replaceable(root, willHave()); err != nil {
		return err
	}
	for _, mark := range []string{"", partMark, oldMark} {
		if err := os.RemoveAll(s.dist(root) + mark); err != nil {
			return err
		}
	}
	return nil
}
