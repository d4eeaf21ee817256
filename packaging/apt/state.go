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
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
)

// state is what a suite offers at one moment.
type state struct {
	release  *release    // nil before the first publish
	packages []paragraph // as in Packages, sorted
	contents contents
	added    map[string]string // files to bring into the pool, by their place there
}

// next is a copy to add packages to.
func (s *state) next() *state {
	return &state{release: s.release, packages: slices.Clone(s.packages), contents: s.contents.clone(), added: map[string]string{}}
}

// identity is what must never stand for other bytes.
func identity(p paragraph) string {
	return p.get("Package") + " " + p.get("Version") + " " + p.get("Architecture")
}

// find gives the published package of an identity.
func (s *state) find(id string) (paragraph, bool) {
	i := slices.IndexFunc(s.packages, func(p paragraph) bool { return identity(p) == id })
	if i < 0 {
		return nil, false
	}
	return s.packages[i], true
}

// add takes a package up. One that is there already is left alone.
func (s *state) add(ctx context.Context, file string) error {
	d, err := readDeb(ctx, file)
	if err != nil {
		return err
	}
	sum, size, err := measure(ctx, file)
	if err != nil {
		return err
	}
	id := identity(d.control)
	if old, ok := s.find(id); ok {
		if old.get("SHA256") == sum {
			return nil
		}
		return fmt.Errorf("%w: %s (%s is not %s): raise the version", ErrVersionConflict, id, filepath.Base(file), old.get("Filename"))
	}
	place := poolPlace(d.control)
	s.packages = append(s.packages, append(slices.Clone(d.control),
		field{"Filename", place}, field{"Size", strconv.FormatInt(size, 10)}, field{"SHA256", sum}))
	slices.SortFunc(s.packages, func(a, b paragraph) int { return cmp.Compare(identity(a), identity(b)) })
	pkg := d.control.get("Package")
	if section := d.control.get("Section"); section != "" {
		pkg = section + "/" + pkg
	}
	for _, p := range d.paths {
		s.contents.add(p, pkg)
	}
	s.added[place] = file
	return nil
}

// poolPlace is a package's path in the repository. An epoch has no place in file
// names.
func poolPlace(p paragraph) string {
	name, version := p.get("Package"), p.get("Version")
	if _, after, ok := strings.Cut(version, ":"); ok {
		version = after
	}
	folder := name[:1]
	if strings.HasPrefix(name, "lib") && len(name) > 3 {
		folder = name[:4]
	}
	return path.Join("pool", component, folder, name, name+"_"+version+"_"+p.get("Architecture")+".deb")
}

func measure(ctx context.Context, file string) (sum string, size int64, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", 0, fmt.Errorf("%w: %w", ErrPackage, err)
	}
	sum, size, err = measureReader(ctx, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", 0, fmt.Errorf("%w: read %s: %w", ErrPackage, file, err)
	}
	return sum, size, nil
}

func measureReader(ctx context.Context, r io.Reader) (sum string, size int64, err error) {
	h := sha256.New()
	size, err = io.Copy(h, ctxio.Reader(ctx, r))
	return hex.EncodeToString(h.Sum(nil)), size, err
}

// packagesText is the file Packages.
func (s *state) packagesText() []byte {
	var b bytes.Buffer
	for i, p := range s.packages {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
	}
	return b.Bytes()
}

// render gives all files of a publish.
func (s *state) render(o Options) (*publication, error) {
	r := &release{suite: o.Suite, date: o.Date, valid: o.Date.Add(o.Validity)}
	pub := &publication{keep: o.Retention, pool: s.added, top: map[string][]byte{}}
	for _, index := range []struct {
		name string
		text []byte
	}{
		{path.Join(component, "binary-"+architecture, "Packages"), s.packagesText()},
		{path.Join(component, "Contents-"+architecture), s.contents.format()},
	} {
		forms, err := compressed(index.name, index.text)
		if err != nil {
			return nil, err
		}
		for _, f := range forms {
			r.files = append(r.files, listed{name: f.name, sha256: digest(f.data), size: int64(len(f.data))})
		}
		pub.indexes = append(pub.indexes, forms...)
	}
	slices.SortFunc(r.files, func(a, b listed) int { return cmp.Compare(a.name, b.name) })
	pub.release, pub.text = r, r.format()
	if err := s.checkDate(r, pub.text); err != nil {
		return nil, err
	}
	pub.top[sourcesName] = sources(o)
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

// checkDate refuses to go back in time: clients keep what they have when they
// are shown something older.
func (s *state) checkDate(next *release, text []byte) error {
	if s.release == nil || next.date.After(s.release.date) || bytes.Equal(text, s.release.format()) {
		return nil
	}
	return fmt.Errorf("%w: the repository is of %s, this publish of %s would change it: give a later date",
		ErrDate, s.release.date.Format(dateForm), next.date.Format(dateForm))
}
