// Package debgen writes small Debian packages for tests of their readers: a control
// file and some files, in each compression that deb(5) describes. It checks nothing,
// so that it can also write broken packages. Package packaging/deb writes real ones.
package debgen

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/blakesmith/ar"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Package has the contents of a Debian package.
type Package struct {
	// Control is the text of the control file.
	Control string
	// Files maps paths to contents.
	Files map[string]string
	// Compression is the suffix of the data archive: "" (none), ".gz", ".xz", ".zst".
	Compression string
}

// Control returns a control file with all mandatory fields.
func Control(name, version string) string {
	return fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: A. Person <person@example.org>\nSection: misc\nDescription: for a test\n Only that.\n", name, version)
}

// Write writes the package to the file name in dir and returns its path.
func (p Package) Write(dir, name string) (string, error) {
	b, err := p.Bytes()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, b, 0o644)
}

// Bytes returns the package.
func (p Package) Bytes() ([]byte, error) {
	control, err := archive(".gz", map[string]string{"control": p.Control})
	if err != nil {
		return nil, err
	}
	data, err := archive(p.Compression, p.Files)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := ar.NewWriter(&out)
	err = w.WriteGlobalHeader()
	for _, m := range []struct {
		name string
		body []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar.gz", control}, {"data.tar" + p.Compression, data}} {
		h := &ar.Header{Name: m.name, Size: int64(len(m.body)), Mode: 0o644, ModTime: time.Unix(0, 0)}
		err = errors.Join(err, w.WriteHeader(h))
		_, writeErr := w.Write(m.body)
		err = errors.Join(err, writeErr)
	}
	return out.Bytes(), err
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func archive(suffix string, files map[string]string) ([]byte, error) {
	var out bytes.Buffer
	var z io.WriteCloser
	var err error
	switch suffix {
	case "":
		z = nopCloser{&out}
	case ".gz":
		z = gzip.NewWriter(&out)
	case ".xz":
		z, err = xz.NewWriter(&out)
	case ".zst":
		z, err = zstd.NewWriter(&out)
	default:
		err = fmt.Errorf("no compression is called %q", suffix)
	}
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(z)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		body := files[name]
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: "./" + name, Size: int64(len(body)), Mode: 0o644, ModTime: time.Unix(0, 0)}))
		_, writeErr := io.WriteString(w, body)
		err = errors.Join(err, writeErr)
	}
	err = errors.Join(err, w.Close(), z.Close())
	return out.Bytes(), err
}
