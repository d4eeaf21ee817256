package apt

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
)

// maxControl bounds a package's control file, in bytes.
const maxControl = 4 << 20

// debFile is what an index says about a package.
type debFile struct {
	control paragraph
	paths   []string // of files and links, without a slash at the start, sorted
}

// readDeb reads a package in the format of deb(5).
func readDeb(ctx context.Context, name string) (*debFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPackage, err)
	}
	defer func() { _ = f.Close() }()
	d, err := parseDeb(ctx, ctxio.Reader(ctx, f))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrPackage, name, err)
	}
	return d, nil
}

func parseDeb(ctx context.Context, r io.Reader) (*debFile, error) {
	d := &debFile{}
	var data bool
	members, err := newArReader(r)
	if err != nil {
		return nil, fmt.Errorf("no Debian package: %w", err)
	}
	for n := 0; ; n++ {
		member, err := members.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("no Debian package: %w", err)
		}
		switch stem, _, _ := strings.Cut(member, ".tar"); {
		case n == 0 && member != "debian-binary":
			return nil, fmt.Errorf("no Debian package: it begins with %q", member)
		case stem == "control":
			err = inTar(member, members.body, d.readControl)
		case stem == "data":
			data = true
			err = inTar(member, members.body, func(t *tar.Reader) error { return d.readPaths(ctx, t) })
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", member, err)
		}
	}
	if d.control == nil || !data {
		return nil, errors.New("no Debian package: the control or the data part is missing")
	}
	return d, d.check()
}

// inTar opens a compressed tar archive by the end of its name.
func inTar(name string, r io.Reader, read func(*tar.Reader) error) error {
	switch suffix := path.Ext(name); suffix {
	case ".tar":
	case ".gz":
		z, err := gzip.NewReader(r)
		if err != nil {
			return err
		}
		r = z
	case ".xz":
		z, err := xz.NewReader(r)
		if err != nil {
			return err
		}
		r = z
	case ".zst":
		z, err := zstd.NewReader(r)
		if err != nil {
			return err
		}
		defer z.Close()
		r = z
	default:
		return fmt.Errorf("%q is not a compression that apt packages have here", suffix)
	}
	return read(tar.NewReader(r))
}

func (d *debFile) readControl(t *tar.Reader) error {
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if path.Clean("/"+h.Name) != "/control" {
			continue
		}
		ps, err := parse(io.LimitReader(t, maxControl))
		if err != nil {
			return err
		}
		if len(ps) != 1 {
			return fmt.Errorf("%d paragraphs instead of one", len(ps))
		}
		d.control = ps[0]
	}
}

func (d *debFile) readPaths(ctx context.Context, t *tar.Reader) error {
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			slices.Sort(d.paths)
			return ctx.Err()
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if name := path.Clean("/" + h.Name); h.Typeflag != tar.TypeDir && !strings.ContainsAny(name, "\r\n") {
			d.paths = append(d.paths, name[1:])
		}
	}
}

// check refuses a package that an index of this repository cannot name.
func (d *debFile) check() error {
	for _, name := range []string{"Package", "Version", "Architecture", "Maintainer", "Description"} {
		if d.control.get(name) == "" {
			return fmt.Errorf("the control file has no %s", name)
		}
	}
	for _, name := range []string{"Package", "Version", "Architecture"} {
		if v := d.control.get(name); strings.ContainsAny(v, "/ \t\n\\") || strings.HasPrefix(v, ".") {
			return fmt.Errorf("%s is %q", name, v)
		}
	}
	if a := d.control.get("Architecture"); a != architecture && a != "all" {
		return fmt.Errorf("it is for %s: the repository is for %s", a, architecture)
	}
	for _, name := range []string{"Filename", "Size", "SHA256"} {
		if d.control.has(name) {
			return fmt.Errorf("the control file has %s, which belongs to indexes", name)
		}
	}
	return nil
}
