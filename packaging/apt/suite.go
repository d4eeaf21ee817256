package apt

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
	"forge.lthn.ai/core/go-rocm/internal/deb822"
	"forge.lthn.ai/core/go-rocm/packaging/deb"
)

// suite is the published state of a suite.
type suite struct {
	release  *release           // nil before the first publish
	packages []deb822.Paragraph // as in Packages, sorted
	contents contents
	added    map[string]string // files to add to the pool, by their path there
}

// Paths of the indexes below the suite's directory.
var (
	packagesIndex = path.Join(component, "binary-"+architecture, "Packages")
	contentsIndex = path.Join(component, "Contents-"+architecture)
)

// next returns a copy to add packages to.
func (s *suite) next() *suite {
	return &suite{release: s.release, packages: slices.Clone(s.packages), contents: s.contents.clone(), added: map[string]string{}}
}

// identity returns the key under which a package's contents never change.
func identity(p deb822.Paragraph) string {
	return p.Get("Package") + " " + p.Get("Version") + " " + p.Get("Architecture")
}

// find returns the published package with an identity.
func (s *suite) find(id string) (deb822.Paragraph, bool) {
	i := slices.IndexFunc(s.packages, func(p deb822.Paragraph) bool { return identity(p) == id })
	if i < 0 {
		return nil, false
	}
	return s.packages[i], true
}

// add adds a package, unless it is already published.
func (s *suite) add(ctx context.Context, file string) error {
	d, err := readDeb(ctx, file)
	if err != nil {
		return err
	}
	sum, size, err := hashFile(ctx, file)
	if err != nil {
		return err
	}
	id := identity(d.control)
	if old, ok := s.find(id); ok {
		if old.Get("SHA256") == sum {
			return nil
		}
		return fmt.Errorf("%w: %s (%s differs from %s): raise the version", ErrVersionConflict, id, filepath.Base(file), old.Get("Filename"))
	}
	place := poolPath(d.control)
	s.packages = append(s.packages, append(slices.Clone(d.control),
		deb822.Field{Name: "Filename", Value: place}, deb822.Field{Name: "Size", Value: strconv.FormatInt(size, 10)}, deb822.Field{Name: "SHA256", Value: sum}))
	slices.SortFunc(s.packages, func(a, b deb822.Paragraph) int { return cmp.Compare(identity(a), identity(b)) })
	pkg := d.control.Get("Package")
	if section := d.control.Get("Section"); section != "" {
		pkg = section + "/" + pkg
	}
	for _, p := range d.paths {
		s.contents.add(p, pkg)
	}
	s.added[place] = file
	return nil
}

// poolPath returns the path of a package in the repository. File names have no
// epoch.
func poolPath(p deb822.Paragraph) string {
	name, version := p.Get("Package"), p.Get("Version")
	if _, after, ok := strings.Cut(version, ":"); ok {
		version = after
	}
	prefix := name[:1]
	if strings.HasPrefix(name, "lib") && len(name) > 3 {
		prefix = name[:4]
	}
	return path.Join("pool", component, prefix, name, name+"_"+version+"_"+p.Get("Architecture")+".deb")
}

// hashFile returns the SHA-256 digest and the size of a file.
func hashFile(ctx context.Context, file string) (sum string, size int64, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", 0, fmt.Errorf("%w: %w", ErrPackage, err)
	}
	sum, size, err = hashReader(ctx, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", 0, fmt.Errorf("%w: read %s: %w", ErrPackage, file, err)
	}
	return sum, size, nil
}

func hashReader(ctx context.Context, r io.Reader) (sum string, size int64, err error) {
	h := sha256.New()
	size, err = io.Copy(h, ctxio.Reader(ctx, r))
	return hex.EncodeToString(h.Sum(nil)), size, err
}

// packagesText returns the text of the Packages index.
func (s *suite) packagesText() []byte {
	var b bytes.Buffer
	for i, p := range s.packages {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
	}
	return b.Bytes()
}

// render returns all files of a publish.
func (s *suite) render(o Options) (*publication, error) {
	r := &release{suite: o.Suite, date: o.Date, validUntil: o.Date.Add(o.Validity)}
	pub := &publication{retention: o.Retention, pool: s.added, top: map[string][]byte{}}
	for _, index := range []struct {
		name string
		text []byte
	}{
		{packagesIndex, s.packagesText()},
		{contentsIndex, s.contents.format()},
	} {
		formats, err := compressIndex(index.name, index.text)
		if err != nil {
			return nil, err
		}
		for _, f := range formats {
			r.files = append(r.files, listed{name: f.name, sha256: digest(f.data), size: int64(len(f.data))})
		}
		pub.indexes = append(pub.indexes, formats...)
	}
	slices.SortFunc(r.files, func(a, b listed) int { return cmp.Compare(a.name, b.name) })
	pub.release, pub.text = r, r.format()
	if err := s.checkDate(r, pub.text); err != nil {
		return nil, err
	}
	pub.top[sourcesFile] = sources(o)
	if o.Keys == nil {
		return pub, nil
	}
	var err error
	if pub.inRelease, err = o.Keys.clearSign(pub.text, o.Date); err != nil {
		return nil, err
	}
	if pub.signature, err = o.Keys.Sign(pub.text, o.Date); err != nil {
		return nil, err
	}
	pub.top[KeyringFile], err = o.Keys.Keyring()
	return pub, err
}

// checkDate rejects a date that is not later than the published one: clients
// ignore a Release file that is older than the one they have.
func (s *suite) checkDate(next *release, text []byte) error {
	if s.release == nil || next.date.After(s.release.date) || bytes.Equal(text, s.release.format()) {
		return nil
	}
	return fmt.Errorf("%w: the repository was published at %s, and this publish at %s would change it: set a later date",
		ErrDate, s.release.date.Format(dateLayout), next.date.Format(dateLayout))
}

// NewestVersion returns the version and the SHA-256 digest of the newest package
// with a name, in Debian's order, in the repository in dir; both are empty if
// there is none. It does not verify signatures: a publish on top of the result
// does.
func NewestVersion(dir, suite, name string) (version, digest string, err error) {
	text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(path.Join(suiteDir(suite), packagesIndex))))
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	var packages []deb822.Paragraph
	if err == nil {
		packages, err = deb822.Parse(bytes.NewReader(text))
	}
	if err != nil {
		return "", "", fmt.Errorf("%w: %s: %w", ErrRepository, dir, err)
	}
	for _, p := range packages {
		if v := p.Get("Version"); p.Get("Package") == name && (version == "" || deb.CompareVersions(version, v) < 0) {
			version, digest = v, p.Get("SHA256")
		}
	}
	return version, digest, nil
}
