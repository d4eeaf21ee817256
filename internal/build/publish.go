package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"forge.lthn.ai/core/go-rocm/packaging/apt"
	"forge.lthn.ai/core/go-rocm/packaging/goproxy"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

const proxyDir = "goproxy"

// Publish copies the apt repository and the Go modules of the release in the dist
// directory to the directory dir. A web server may be serving dir meanwhile.
func Publish(dir string) error {
	return withCheckout(func(ctx context.Context, s *Session) error {
		root, err := Root()
		if err != nil {
			return err
		}
		return s.publishTo(ctx, s.dist(root), dir)
	})
}

func (s *Session) publishTo(ctx context.Context, dist, dir string) error {
	if err := checkRelease(ctx, dist, dir); err != nil {
		return fmt.Errorf("nothing is published: %w", err)
	}
	if err := goproxy.Mirror(ctx, filepath.Join(dist, proxyDir), filepath.Join(dir, proxyDir)); err != nil {
		return err
	}
	hasApt, err := dirExists(filepath.Join(dist, aptDir))
	if err != nil {
		return err
	}
	if !hasApt {
		return s.printf("publish: copied the Go modules to %s; the release has no apt repository", dir)
	}
	if err := apt.Mirror(ctx, filepath.Join(dist, aptDir), filepath.Join(dir, aptDir)); err != nil {
		return err
	}
	return s.printf("publish: copied the Go modules and the apt repository to %s", dir)
}

// checkRelease checks a release before it is published: its files have the listed
// checksums, and if clients of dir trust keys, the list is signed by one of them.
// A release cannot turn the check off: only where dir has no keys yet do those of
// the release itself count.
func checkRelease(ctx context.Context, dist, dir string) error {
	var keys release.TrustedKeys
	for _, keyring := range []string{filepath.Join(dir, aptDir, apt.KeyringFile), filepath.Join(dist, aptDir, apt.KeyringFile)} {
		text, err := os.ReadFile(keyring)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if keys.OpenPGP, err = release.ParseOpenPGPVerifier(text); err != nil {
			return fmt.Errorf("%s: %w", keyring, err)
		}
		break
	}
	_, err := release.Verify(ctx, dist, keys)
	if errors.Is(err, release.ErrUnsigned) {
		return fmt.Errorf("%w: clients expect a signature by their keys; build the release with GOROCM_APT_KEY_FILE", err)
	}
	if err != nil {
		return err
	}
	return checkMirrors(ctx, dist, dir)
}

// checkMirrors checks both the modules and the apt repository before either is
// published, so that one is never published without the other.
func checkMirrors(ctx context.Context, dist, dir string) error {
	if err := goproxy.CheckMirror(ctx, filepath.Join(dist, proxyDir), filepath.Join(dir, proxyDir)); err != nil {
		return err
	}
	hasApt, err := dirExists(filepath.Join(dist, aptDir))
	if err != nil || !hasApt {
		return err
	}
	return apt.CheckMirror(ctx, filepath.Join(dist, aptDir), filepath.Join(dir, aptDir))
}

// dirExists reports whether a directory exists. A file of that name, or one that
// cannot be read, is an error.
func dirExists(name string) (bool, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err == nil && !info.IsDir():
		err = fmt.Errorf("%s is not a directory", name)
	}
	return err == nil, err
}

// publishedRoot returns the directory of the earlier releases that this release
// is added to, or "" for none. A signed release in the dist directory counts as
// published.
func (s *Session) publishedRoot(root string) (string, error) {
	if p := s.Settings.Published; p != "" {
		return p, checkPublished(p)
	}
	switch _, err := os.Stat(filepath.Join(s.dist(root), inReleaseFile)); {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("look for an earlier release: %w", err)
	}
	return s.dist(root), nil
}

// checkPublished rejects a directory that cannot hold published releases. An
// empty directory is valid: it means that nothing has been published.
func checkPublished(dir string) error {
	const remedy = "set it to the directory that was given to `mage publish`, or to an empty one before the first release"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("GOROCM_PUBLISHED: %w: %s", err, remedy)
	}
	published := func(e fs.DirEntry) bool { return e.Name() == aptDir || e.Name() == proxyDir }
	if len(entries) > 0 && !slices.ContainsFunc(entries, published) {
		return fmt.Errorf("GOROCM_PUBLISHED: %s contains neither %s nor %s: %s", dir, aptDir, proxyDir, remedy)
	}
	return nil
}

// publishedDir returns a directory of the earlier releases, or "" for none.
func (s *Session) publishedDir(root, name string) (string, error) {
	before, err := s.publishedRoot(root)
	if err != nil || before == "" {
		return "", err
	}
	found, err := dirExists(filepath.Join(before, name))
	if err != nil || !found {
		return "", err
	}
	return filepath.Join(before, name), nil
}
