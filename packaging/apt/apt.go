// Package apt makes an apt repository of Debian packages and adds to one:
// pool, indexes, and the signed Release files over them
// (https://wiki.debian.org/DebianRepository/Format).
//
// A repository is a folder that any web server can hand out, also while
// Publish or Mirror is at work in it. What a client reads after a Release file
// lies under the name of its digest and is there before the Release file is;
// it stays for DefaultRetention after a newer one took its place. So a client
// that is overtaken by one publish or by many still finds all that its Release
// file names. Packages are never removed, and the name and version of a package
// never stand for other bytes.
//
// The same packages, date, keys and earlier state give the same bytes. Nothing
// here reads the clock: the date of a publish is given, and a repository's dates
// only go up, since clients refuse to go back.
//
// The package builds no packages but the one with the repository's own keys
// (see packaging/deb), and serves nothing.
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

// Times that a repository is made with when the options name none.
const (
	// DefaultRetention is how long indexes stay after newer ones took their
	// place. Clients need minutes; caches between them and the server, days.
	DefaultRetention = 14 * 24 * time.Hour
	// DefaultValidity is how long clients trust a Release file.
	DefaultValidity = 90 * 24 * time.Hour
)

// Errors that Publish and Mirror return wrapped.
var (
	// ErrOptions says that an option is missing or has no meaning.
	ErrOptions = errors.New("apt options")
	// ErrKey says that a key cannot sign a repository.
	ErrKey = errors.New("apt key")
	// ErrPackage says that a file is no package that can be indexed.
	ErrPackage = errors.New("apt package")
	// ErrVersionConflict says that a published version would get other bytes.
	ErrVersionConflict = errors.New("the version is already published with other bytes")
	// ErrDate says that a publish is not later than the one before it.
	ErrDate = errors.New("apt date")
	// ErrRepository says that an existing repository is not what its own
	// Release file says, or was not signed by the given keys.
	ErrRepository = errors.New("apt repository")
)

// Options say what to publish where.
type Options struct {
	// Dir is the repository; it is made when it does not exist.
	Dir string
	// URL is where clients find Dir, for the .sources file.
	URL string
	// Suite is the suite to publish into, such as "stable".
	Suite string
	// Debs are the packages to add. Those that are already there stay.
	Debs []string
	// Date is the time of the publish: in the Release file and in the
	// signatures. It must be later than that of the publish before, unless
	// nothing changes.
	Date time.Time
	// Validity is how long after Date clients trust the result; zero means
	// DefaultValidity.
	Validity time.Duration
	// Retention is how long replaced indexes stay; zero means DefaultRetention.
	Retention time.Duration
	// Keys sign the repository. They are nil for one that clients take without
	// a signature, which Unsigned must then ask for.
	Keys *Keys
	// Unsigned asks for a repository without signatures.
	Unsigned bool
	// Maintainer stands in the package with the keys; empty means that of
	// packaging/deb.
	Maintainer string
}

const (
	component    = "main"
	architecture = "amd64"
)

// Publish adds packages to the repository in o.Dir and makes it anew for
// clients. When it fails or is killed, clients keep seeing the state before;
// running it again completes it.
func Publish(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return fmt.Errorf("make the repository: %w", err)
	}
	s, err := openSite(ctx, o.Dir)
	if err != nil {
		return err
	}
	err = publish(ctx, s, o)
	return errors.Join(err, s.close())
}

func publish(ctx context.Context, s *site, o Options) error {
	before, err := s.read(ctx, o.Suite, o.Keys)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "go-rocm-apt-")
	if err != nil {
		return fmt.Errorf("make a working folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()

	next := before.next()
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
	files.before = before.release
	return s.commit(ctx, o.Suite, files)
}

// Check says whether the options can work, apart from the repository's folder and
// what is in it.
func (o Options) Check() error {
	o.Dir = "."
	return o.complete()
}

// complete fills in defaults and refuses options that cannot work.
func (o *Options) complete() error {
	if o.Dir == "" {
		return fmt.Errorf("%w: no folder is named for the repository", ErrOptions)
	}
	abs, err := filepath.Abs(o.Dir)
	if err != nil {
		return fmt.Errorf("find the repository: %w", err)
	}
	o.Dir = abs
	if !validSuite(o.Suite) {
		return fmt.Errorf("%w: suite %q: give a word of lower-case letters, digits and hyphens, as stable", ErrOptions, o.Suite)
	}
	if u, err := url.Parse(o.URL); err != nil || u.Scheme == "" || (u.Host == "" && u.Scheme != "file") || strings.ContainsAny(o.URL, " \t\r\n") {
		return fmt.Errorf("%w: %q is not the address of a repository: give one such as https://example.org/apt", ErrOptions, o.URL)
	}
	if o.Validity == 0 {
		o.Validity = DefaultValidity
	}
	if o.Retention == 0 {
		o.Retention = DefaultRetention
	}
	if o.Validity < 0 || o.Retention < 0 {
		return fmt.Errorf("%w: times cannot be negative (valid for %s, kept for %s)", ErrOptions, o.Validity, o.Retention)
	}
	if o.Date.Unix() <= 0 {
		return fmt.Errorf("%w: the date is %s: give the time of this publish", ErrOptions, o.Date.UTC().Format(time.RFC3339))
	}
	o.Date = o.Date.UTC().Truncate(time.Second)
	switch {
	case o.Keys == nil && !o.Unsigned:
		return fmt.Errorf("%w: no key is given: clients refuse an unsigned repository unless told to trust it; give a key, or ask for an unsigned one", ErrOptions)
	case o.Keys != nil && o.Unsigned:
		return fmt.Errorf("%w: a key is given and an unsigned repository asked for: choose one", ErrOptions)
	case o.Keys != nil:
		return o.Keys.usable(o.Date, o.Date.Add(o.Validity))
	}
	return nil
}

func validSuite(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && !strings.HasPrefix(s, "-")
}
