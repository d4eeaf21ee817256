package build

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/build/settings"
	"forge.lthn.ai/core/go-rocm/packaging/apt"
)

const (
	aptDir   = "apt"
	aptSuite = "stable"
)

// releaseDate returns the date of the apt repository: that of the settings, or
// else that of the sources, so that a later release has a later date without a
// setting.
func (s *Session) releaseDate(ctx context.Context, root string) (time.Time, error) {
	if date := s.Settings.ReleaseDate; !date.IsZero() {
		return date, nil
	}
	return s.sourceDate(ctx, root)
}

// sourceDate returns SOURCE_DATE_EPOCH, or else the time of the commit.
func (s *Session) sourceDate(ctx context.Context, root string) (time.Time, error) {
	if date := s.Settings.SourceDate; !date.IsZero() {
		return date, nil
	}
	out, err := git(ctx, root, nil, "log", "-1", "--format=%ct")
	if err != nil {
		return time.Time{}, fmt.Errorf("read the time of the commit: %w; set SOURCE_DATE_EPOCH, or build in a git checkout", err)
	}
	return settings.ParseEpoch(strings.TrimSpace(string(out)))
}

// aptOptions returns the options of the apt repository; they are nil when the
// settings ask for none. They are checked before anything is built.
func (s *Session) aptOptions(ctx context.Context, root string) (*apt.Options, error) {
	text, from := []byte(s.Settings.AptKey), "GOROCM_APT_KEY"
	if s.Settings.AptKeyFile != "" {
		var err error
		from = "GOROCM_APT_KEY_FILE"
		if text, err = s.readSigningKey(s.Settings.AptKeyFile); err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
	}
	if len(text) == 0 && !s.Settings.AptUnsigned {
		return nil, nil
	}
	o := &apt.Options{URL: s.Settings.AptURL, Suite: aptSuite, Validity: s.Settings.AptValid, Unsigned: s.Settings.AptUnsigned, Maintainer: s.Settings.Maintainer}
	var err error
	if len(text) > 0 {
		if o.Keys, err = apt.ParseKeys(text, []byte(s.Settings.AptPassphrase)); err != nil {
			return nil, fmt.Errorf("%s: %w; set GOROCM_APT_PASSPHRASE if the key has a passphrase", from, err)
		}
	}
	if o.Date, err = s.releaseDate(ctx, root); err != nil {
		return nil, err
	}
	const remedy = "set GOROCM_RELEASE_DATE, to the output of `date +%s` for the current time"
	if until := o.Date.Add(o.Validity); !time.Now().Before(until) {
		return nil, fmt.Errorf("the apt repository would be dated %s and have expired on %s: %s, or a longer GOROCM_APT_VALID",
			o.Date.Format(time.DateOnly), until.Format(time.DateOnly), remedy)
	}
	if err := o.Check(); err != nil {
		return nil, fmt.Errorf("the apt repository would be dated %s: %w; if the date is wrong, %s", o.Date.Format(time.RFC3339), err, remedy)
	}
	return o, nil
}

// aptInto adds the packages of the delivery to a copy of the published
// repository. The copy consists of hard links.
func (s *Session) aptInto(ctx context.Context, d *delivery) error {
	o, err := s.aptOptions(ctx, d.root)
	if err != nil {
		return err
	}
	if o == nil {
		return s.printf("apt: no repository, because no key is set: set GOROCM_APT_KEY_FILE, or GOROCM_APT_UNSIGNED=true")
	}
	o.Dir = filepath.Join(d.dir, aptDir)
	if o.Debs, err = filepath.Glob(filepath.Join(d.dir, "*.deb")); err != nil {
		return err
	}
	before, err := s.publishedDir(d.root, aptDir)
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
		return fmt.Errorf("%w in CHANGELOG.md or by GOROCM_VERSION; a version that was never published may be removed from %s", err, before)
	case errors.Is(err, apt.ErrDate):
		return fmt.Errorf("%w in GOROCM_RELEASE_DATE", err)
	case err != nil:
		return err
	}
	if o.Keys == nil {
		return s.printf("apt: the repository is NOT signed: clients cannot detect a forged one")
	}
	return s.printf("apt: signed by %s, dated %s, valid until %s", strings.Join(o.Keys.Fingerprints(), ", "),
		o.Date.Format(time.RFC3339), o.Date.Add(o.Validity).Format(time.RFC3339))
}
