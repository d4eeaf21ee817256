// Package apt publishes Debian packages in an apt repository: the pool, the
// indexes, and the signed Release files
// (https://wiki.debian.org/DebianRepository/Format).
//
// A repository is a directory that any web server can serve, even while Publish
// or Mirror writes to it. Every index that a Release file names is stored by its
// digest before the Release file is written, and stays for DefaultRetention after
// a newer publish has replaced it. A client that reads while any number of
// publishes happen therefore finds every file that its Release file names.
// Packages are never removed, and a published name and version never changes its
// contents.
//
// The same packages, date, keys and earlier state produce the same bytes. The
// package never reads the clock: the caller passes the date of a publish, and the
// dates of a repository only increase, because clients refuse to go back.
//
// The only package that it builds is the one with the repository's own keys (see
// packaging/deb). It does not serve the repository.
package apt

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Defaults for Options.
const (
	// DefaultRetention is how long replaced indexes stay. Clients need minutes;
	// caches between them and the server may need days.
	DefaultRetention = 14 * 24 * time.Hour
	// DefaultValidity is how long clients accept a Release file.
	DefaultValidity = 90 * 24 * time.Hour
)

// Errors that Publish and Mirror wrap.
var (
	// ErrOptions reports a missing or invalid option.
	ErrOptions = errors.New("apt options")
	// ErrKey reports a key that cannot sign a repository.
	ErrKey = errors.New("apt key")
	// ErrPackage reports a file that is not a package this repository can index.
	ErrPackage = errors.New("apt package")
	// ErrVersionConflict reports a published version with other contents.
	ErrVersionConflict = errors.New("the version is already published with other contents")
	// ErrDate reports a publish that is not later than the previous one.
	ErrDate = errors.New("apt date")
	// ErrRepository reports an existing repository that does not match its own
	// Release file, or that the given keys did not sign.
	ErrRepository = errors.New("apt repository")
)

// Options configure a publish.
type Options struct {
	// Dir is the directory of the repository. Publish creates it if necessary.
	Dir string
	// URL is the address of Dir for clients, for the .sources file.
	URL string
	// Suite is the suite to publish into, such as "stable".
	Suite string
	// Debs are the paths of the packages to add. Packages that are already
	// published stay.
	Debs []string
	// Date is the time of the publish, in the Release file and in the signatures.
	// It must be later than that of the previous publish, unless nothing changes.
	Date time.Time
	// Validity is how long clients accept the repository after Date; zero means
	// DefaultValidity.
	Validity time.Duration
	// Retention is how long replaced indexes stay; zero means DefaultRetention.
	Retention time.Duration
	// Keys sign the repository. A nil Keys requires Unsigned.
	Keys *Keys
	// Unsigned requests a repository without signatures.
	Unsigned bool
	// Maintainer is the maintainer of the keyring package; empty means the
	// default of packaging/deb.
	Maintainer string
}

const (
	component    = "main"
	architecture = "amd64"
)

// Publish adds packages to the repository in o.Dir and writes its indexes anew.
// If it fails or is killed, clients keep seeing the previous state; the next call
// completes the publish.
func Publish(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return fmt.Errorf("create the repository: %w", err)
	}
	r, err := openRepository(ctx, o.Dir)
	if err != nil {
		return err
	}
	err = publish(ctx, r, o)
	return errors.Join(err, r.close())
}

func publish(ctx context.Context, r *repository, o Options) error {
	previous, err := r.readSuite(ctx, o.Suite, o.Keys)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "go-rocm-apt-")
	if err != nil {
		return fmt.Errorf("create a temporary directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()

	next := previous.next()
	for _, path := range o.Debs {
		if err := next.add(ctx, path); err != nil {
			return err
		}
	}
	if o.Keys != nil {
		path, err := keyringPackage(ctx, o, next, work)
		if err != nil {
			return err
		}
		if err := next.add(ctx, path); err != nil {
			return err
		}
	}
	files, err := next.render(o)
	if err != nil {
		return err
	}
	files.previous = previous.release
	return r.commit(ctx, o.Suite, files)
}

// Check validates all options except Dir and the contents of the repository.
func (o Options) Check() error {
	o.Dir = "."
	return o.complete()
}

// complete fills in the defaults and validates the options.
func (o *Options) complete() error {
	if o.Dir == "" {
		return fmt.Errorf("%w: Dir is empty: set the directory of the repository", ErrOptions)
	}
	abs, err := filepath.Abs(o.Dir)
	if err != nil {
		return fmt.Errorf("resolve the repository's path: %w", err)
	}
	o.Dir = abs
	if !validSuite(o.Suite) {
		return fmt.Errorf("%w: suite %q: use lower-case letters, digits and hyphens, such as stable", ErrOptions, o.Suite)
	}
	if u, err := url.Parse(o.URL); err != nil || u.Scheme == "" || (u.Host == "" && u.Scheme != "file") || strings.ContainsAny(o.URL, " \t\r\n") {
		return fmt.Errorf("%w: %q is not a repository URL: use one such as https://example.org/apt", ErrOptions, o.URL)
	}
	if o.Validity == 0 {
		o.Validity = DefaultValidity
	}
	if o.Retention == 0 {
		o.Retention = DefaultRetention
	}
	if o.Validity < 0 || o.Retention < 0 {
		return fmt.Errorf("%w: negative duration (validity %s, retention %s)", ErrOptions, o.Validity, o.Retention)
	}
	if o.Date.Unix() <= 0 {
		return fmt.Errorf("%w: the date is %s: set the time of this publish", ErrOptions, o.Date.UTC().Format(time.RFC3339))
	}
	o.Date = o.Date.UTC().Truncate(time.Second)
	switch {
	case o.Keys == nil && !o.Unsigned:
		return fmt.Errorf("%w: no signing key: clients refuse an unsigned repository unless they are configured to trust it; set a key, or request an unsigned repository", ErrOptions)
	case o.Keys != nil && o.Unsigned:
		return fmt.Errorf("%w: a signing key is set and an unsigned repository requested: choose one", ErrOptions)
	case o.Keys != nil:
		return o.Keys.usable(o.Date, o.Date.Add(o.Validity))
	}
	return nil
}

func validSuite(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && !strings.HasPrefix(s, "-")
}
