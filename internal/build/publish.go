package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/settings"
	"forge.lthn.ai/core/go-rocm/packaging/apt"
	"forge.lthn.ai/core/go-rocm/packaging/goproxy"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

const (
	aptDir   = "apt"
	proxyDir = "goproxy"
	aptSuite = "stable"
)

// Publish brings what a release is added to (the apt repository and the Go
// modules) to the folder dir, which may be being served.
func Publish(dir string) error {
	return inCheckout(func(ctx context.Context, s *Session) error {
		root, err := Root()
		if err != nil {
			return err
		}
		return s.publishTo(ctx, s.dist(root), dir)
	})
}

func (s *Session) publishTo(ctx context.Context, dist, dir string) error {
	if err := publishable(ctx, dist, dir); err != nil {
		return fmt.Errorf("nothing is published: %w", err)
	}
	if err := goproxy.Mirror(ctx, filepath.Join(dist, proxyDir), filepath.Join(dir, proxyDir)); err != nil {
		return err
	}
	there, err := isFolder(filepath.Join(dist, aptDir))
	if err != nil {
		return err
	}
	if !there {
		return s.say("publish: the Go modules are in %s; the release has no apt repository", dir)
	}
	if err := apt.Mirror(ctx, filepath.Join(dist, aptDir), filepath.Join(dir, aptDir)); err != nil {
		return err
	}
	return s.say("publish: the Go modules and the apt repository are in %s", dir)
}

// publishable checks a release before others get it: that its files are those of
// its list of digests and, where clients of dir have been given keys, that the
// list is signed by one of those. What is to be checked does not say whether it
// is signed: only where dir gives no keys yet, those of the release itself count.
func publishable(ctx context.Context, dist, dir string) error {
	var keys release.TrustedKeys
	for _, trusted := range []string{filepath.Join(dir, aptDir, apt.KeyringFile), filepath.Join(dist, aptDir, apt.KeyringFile)} {
		text, err := os.ReadFile(trusted)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if keys.OpenPGP, err = release.ParseOpenPGPVerifier(text); err != nil {
			return fmt.Errorf("%s: %w", trusted, err)
		}
		break
	}
	_, err := release.Verify(ctx, dist, keys)
	if errors.Is(err, release.ErrUnsigned) {
		return fmt.Errorf("%w: clients have keys for it; make the release with GOROCM_APT_KEY_FILE", err)
	}
	if err != nil {
		return err
	}
	return addable(ctx, dist, dir)
}

// addable asks all that is published before any of it is, so that none goes
// without the other.
func addable(ctx context.Context, dist, dir string) error {
	if err := goproxy.CheckMirror(ctx, filepath.Join(dist, proxyDir), filepath.Join(dir, proxyDir)); err != nil {
		return err
	}
	there, err := isFolder(filepath.Join(dist, aptDir))
	if err != nil || !there {
		return err
	}
	return apt.CheckMirror(ctx, filepath.Join(dist, aptDir), filepath.Join(dir, aptDir))
}

// isFolder says whether a folder is there; what cannot be read is an error, and
// so is a file in its place.
func isFolder(name string) (bool, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err == nil && !info.IsDir():
		err = fmt.Errorf("%s is not a folder", name)
	}
	return err == nil, err
}

// releaseDate is the time of the publish: what was asked for, else that of the
// sources, so that a later release has a later one by itself.
func (s *Session) releaseDate(ctx context.Context, root string) (time.Time, error) {
	if date := s.Settings.ReleaseDate; !date.IsZero() {
		return date, nil
	}
	return s.sourceDate(ctx, root)
}

// sourceDate is the time of the commit that is built, unless another was asked
// for.
func (s *Session) sourceDate(ctx context.Context, root string) (time.Time, error) {
	if date := s.Settings.SourceDate; !date.IsZero() {
		return date, nil
	}
	out, err := exec.CommandContext(ctx, "git", "-C", root, "log", "-1", "--format=%ct").Output()
	if err != nil {
		return time.Time{}, fmt.Errorf("ask git for the time of the commit: %w; set SOURCE_DATE_EPOCH", err)
	}
	return settings.ParseEpoch(strings.TrimSpace(string(out)))
}

// published is the folder of an earlier release that this one is added to, empty
// for none. A signed release counts as published.
func (s *Session) published(root string) (string, error) {
	if p := s.Settings.Published; p != "" {
		return p, checkPublished(p)
	}
	switch _, err := os.Stat(filepath.Join(s.dist(root), inReleaseFile)); {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("find out what is published: %w", err)
	}
	return s.dist(root), nil
}

// checkPublished refuses a folder that cannot be what is published. An empty one
// says that nothing is.
func checkPublished(dir string) error {
	const remedy = "name the folder that `mage publish` was given, or an empty one before the first release"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("GOROCM_PUBLISHED: %w: %s", err, remedy)
	}
	known := func(e fs.DirEntry) bool { return e.Name() == aptDir || e.Name() == proxyDir }
	if len(entries) > 0 && !slices.ContainsFunc(entries, known) {
		return fmt.Errorf("GOROCM_PUBLISHED: %s has neither %s nor %s in it: %s", dir, aptDir, proxyDir, remedy)
	}
	return nil
}

// publishedIn gives the folder of that name in what is published, empty for none.
func (s *Session) publishedIn(root, name string) (string, error) {
	before, err := s.published(root)
	if err != nil || before == "" {
		return "", err
	}
	there, err := isFolder(filepath.Join(before, name))
	if err != nil || !there {
		return "", err
	}
	return filepath.Join(before, name), nil
}

// aptOptions are what the settings ask of the apt repository; nil when they ask
// for none. They are checked before anything is built.
func (s *Session) aptOptions(ctx context.Context, root string) (*apt.Options, error) {
	text, from := []byte(s.Settings.AptKey), "GOROCM_APT_KEY"
	if s.Settings.AptKeyFile != "" {
		var err error
		from = "GOROCM_APT_KEY_FILE"
		if text, err = os.ReadFile(s.Settings.AptKeyFile); err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
	}
	if len(text) == 0 && !s.Settings.AptUnsign {
		return nil, nil
	}
	o := &apt.Options{URL: s.Settings.AptURL, Suite: aptSuite, Validity: s.Settings.AptValid, Unsigned: s.Settings.AptUnsign, Maintainer: s.Settings.Maintainer}
	var err error
	if len(text) > 0 {
		if o.Keys, err = apt.ParseKeys(text, []byte(s.Settings.AptPass)); err != nil {
			return nil, fmt.Errorf("%s: %w; a passphrase is taken from GOROCM_APT_PASSPHRASE", from, err)
		}
	}
	if o.Date, err = s.releaseDate(ctx, root); err != nil {
		return nil, err
	}
	const remedy = "set GOROCM_RELEASE_DATE, for now to the output of `date +%s`"
	if until := o.Date.Add(o.Validity); !time.Now().Before(until) {
		return nil, fmt.Errorf("the apt repository would be of %s and expired since %s: %s, or a longer GOROCM_APT_VALID",
			o.Date.Format(time.DateOnly), until.Format(time.DateOnly), remedy)
	}
	if err := o.Check(); err != nil {
		return nil, fmt.Errorf("the apt repository would be of %s: %w; if the date is wrong, %s", o.Date.Format(time.RFC3339), err, remedy)
	}
	return o, nil
}

// aptInto adds the packages of this delivery to the repository that is published,
// in a copy of it made of links.
func (s *Session) aptInto(ctx context.Context, d *delivery) error {
	o, err := s.aptOptions(ctx, d.root)
	if err != nil {
		return err
	}
	if o == nil {
		return s.say("apt: no repository is made, since there is no key: name one in GOROCM_APT_KEY_FILE, or set GOROCM_APT_UNSIGNED=true")
	}
	o.Dir = filepath.Join(d.dir, aptDir)
	if o.Debs, err = filepath.Glob(filepath.Join(d.dir, "*.deb")); err != nil {
		return err
	}
	before, err := s.publishedIn(d.root, aptDir)
	if err != nil {
		return err
	}
	if before != "" {
		if err := apt.Mirror(ctx, before, o.Dir); err != nil {
			return err
		}
	}
	switch err := apt.Publish(ctx, *o); {
	case errors.Is(err, apt.ErrVersionConflict):
		return fmt.Errorf("%w in CHANGELOG.md or by GOROCM_VERSION; what was never published may be removed from %s", err, before)
	case errors.Is(err, apt.ErrDate):
		return fmt.Errorf("%w in GOROCM_RELEASE_DATE", err)
	case err != nil:
		return err
	}
	if o.Keys == nil {
		return s.say("apt: the repository is NOT signed: clients take whatever is sent to them in its place")
	}
	return s.say("apt: signed by %s as of %s, trusted until %s", strings.Join(o.Keys.Fingerprints(), ", "),
		o.Date.Format(time.RFC3339), o.Date.Add(o.Validity).Format(time.RFC3339))
}

// filesBelow lists the regular files below dir, slash-separated.
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
