package apt

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// indexFile is a file below the suite's directory.
type indexFile struct {
	name string
	data []byte
}

// compressIndex returns an index in its three formats: plain, xz and zstd.
func compressIndex(name string, text []byte) ([]indexFile, error) {
	formats := []indexFile{{name, text}}
	for _, c := range []struct {
		suffix string
		open   func(io.Writer) (io.WriteCloser, error)
	}{
		{".xz", func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }},
		{".zst", func(w io.Writer) (io.WriteCloser, error) {
			// One worker: the result must not depend on the number of processors.
			return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
		}},
	} {
		var b bytes.Buffer
		z, err := c.open(&b)
		if err != nil {
			return nil, fmt.Errorf("compress %s: %w", name, err)
		}
		_, err = z.Write(text)
		if err := errors.Join(err, z.Close()); err != nil {
			return nil, fmt.Errorf("compress %s: %w", name, err)
		}
		formats = append(formats, indexFile{name + c.suffix, b.Bytes()})
	}
	return formats, nil
}

// contents is the Contents index: for each path, the qualified names
// ("section/package") of the packages that install it.
type contents map[string][]string

func (c contents) add(path, pkg string) {
	if at, found := slices.BinarySearch(c[path], pkg); !found {
		c[path] = slices.Insert(c[path], at, pkg)
	}
}

// format returns the text of the index, sorted by path.
func (c contents) format() []byte {
	var b bytes.Buffer
	for _, path := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&b, "%s %s\n", path, strings.Join(c[path], ","))
	}
	return b.Bytes()
}

// maxContentsLine limits the length of a line of Contents, in bytes.
const maxContentsLine = 1 << 20

// parseContents reads what format returns. A path may contain spaces; the names
// at the end of its line cannot.
func parseContents(r io.Reader) (contents, error) {
	c := contents{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxContentsLine)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if at <= 0 || at == len(line)-1 {
			return nil, fmt.Errorf("contents: line %d is not a path followed by package names", n)
		}
		for pkg := range strings.SplitSeq(line[at+1:], ",") {
			if pkg == "" {
				return nil, fmt.Errorf("contents: line %d has an empty package name", n)
			}
			c.add(line[:at], pkg)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("contents: %w", err)
	}
	return c, nil
}

func (c contents) clone() contents {
	out := make(contents, len(c))
	for path, pkgs := range c {
		out[path] = slices.Clone(pkgs)
	}
	return out
}
