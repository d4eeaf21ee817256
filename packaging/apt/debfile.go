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
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
	"forge.lthn.ai/core/go-rocm/internal/deb822"
)

// maxControl limits the size of a package's control file, in bytes.
const maxControl = 4 << 20

// debFile is what the indexes record about a package.
type debFile struct {
	control deb822.Paragraph
	paths   []string // files and links, without a leading slash, sorted
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
		return nil, fmt.Errorf("not a Debian package: %w", err)
	}
	for n := 0; ; n++ {
		member, err := members.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("not a Debian package: %w", err)
		}
		switch stem, _, _ := strings.Cut(member, ".tar"); {
		case n == 0 && member != "debian-binary":
			return nil, fmt.Errorf("not a Debian package: the first member is %q", member)
		case stem == "control":
			err = readTar(member, members.body, d.readControl)
		case stem == "data":
			data = true
			err = readTar(member, members.body, func(t *tar.Reader) error { return d.readPaths(ctx, t) })
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", member, err)
		}
	}
	if d.control == nil || !data {
		return nil, errors.New("not a Debian package: the control or the data archive is missing")
	}
	return d, d.check()
}

// readTar decompresses a tar archive by the suffix of its name.
func readTar(name string, r io.Reader, read func(*tar.Reader) error) error {
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
		return fmt.Errorf("unsupported compression %q", suffix)
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
		ps, err := deb822.Parse(io.LimitReader(t, maxControl))
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

// check rejects a package that an index of this repository cannot describe.
func (d *debFile) check() error {
	for _, name := range []string{"Package", "Version", "Architecture", "Maintainer", "Description"} {
		if d.control.Get(name) == "" {
			return fmt.Errorf("the control file has no %s", name)
		}
	}
	for _, name := range []string{"Package", "Version", "Architecture"} {
		if v := d.control.Get(name); strings.ContainsAny(v, "/ \t\n\\") || strings.HasPrefix(v, ".") {
			return fmt.Errorf("invalid %s %q", name, v)
		}
	}
	if a := d.control.Get("Architecture"); a != architecture && a != "all" {
		return fmt.Errorf("the package is for %s, the repository for %s", a, architecture)
	}
	for _, name := range []string{"Filename", "Size", "SHA256"} {
		if d.control.Has(name) {
			return fmt.Errorf("the control file has the field %s, which only indexes may have", name)
		}
	}
	return nil
}

// arReader reads the members of an ar archive in the dialect of deb(5): short
// names, no symbol table. The ar library that writes the packages cannot be used
// for reading, because it does not validate its input.
type arReader struct {
	r       io.Reader
	body    *io.LimitedReader // of the current member
	padding int64
}

const (
	arMagic      = "!<arch>\n"
	arHeaderSize = 60
)

func newArReader(r io.Reader) (*arReader, error) {
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil {
		return nil, fmt.Errorf("not an ar archive: %w", err)
	}
	if string(magic) != arMagic {
		return nil, errors.New("not an ar archive")
	}
	return &arReader{r: r, body: &io.LimitedReader{R: r}}, nil
}

// next advances to the next member, whose contents are then in a.body. It returns
// io.EOF after the last one.
func (a *arReader) next() (name string, err error) {
	rest := a.body.N + a.padding
	if n, err := io.CopyN(io.Discard, a.r, rest); err != nil && (n < rest-a.padding || !errors.Is(err, io.EOF)) {
		return "", fmt.Errorf("the archive is truncated within a member: %w", err)
	}
	a.body.N, a.padding = 0, 0
	h := make([]byte, arHeaderSize)
	switch _, err := io.ReadFull(a.r, h); {
	case errors.Is(err, io.EOF):
		return "", io.EOF
	case err != nil:
		return "", fmt.Errorf("the archive is truncated within a header: %w", err)
	}
	size, err := strconv.ParseUint(strings.TrimRight(string(h[48:58]), " "), 10, 40)
	if err != nil || string(h[58:]) != "`\n" {
		return "", errors.New("malformed member header")
	}
	a.body.N, a.padding = int64(size), int64(size%2)
	return strings.TrimRight(string(h[:16]), "/ "), nil
}
