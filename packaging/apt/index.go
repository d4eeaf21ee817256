package apt

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// indexFile is a file below the suite's directory.
type indexFile struct {
	name string
	data []byte
}

// zstdEncoder returns the encoder of all indices: its tables are larger than they are.
// One worker: the result must not depend on the number of processors.
var zstdEncoder = sync.OnceValues(func() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
})

// compressIndex returns an index in its three formats: plain, xz and zstd.
func compressIndex(name string, text []byte) ([]indexFile, error) {
	var b bytes.Buffer
	x, err := xz.WriterConfig{DictCap: windowSize(len(text))}.NewWriter(&b)
	if err != nil {
		return nil, fmt.Errorf("compress %s: %w", name, err)
	}
	_, err = x.Write(text)
	if err := errors.Join(err, x.Close()); err != nil {
		return nil, fmt.Errorf("compress %s: %w", name, err)
	}
	z, err := zstdEncoder()
	if err != nil {
		return nil, fmt.Errorf("compress %s: %w", name, err)
	}
	return []indexFile{{name, text}, {name + ".xz", b.Bytes()}, {name + ".zst", z.EncodeAll(text, nil)}}, nil
}

// windowSize returns the window for compressing n bytes: the next power of two, between
// 4 KiB, the smallest of xz, and its default of 8 MiB. A larger window than the text
// saves nothing, and the encoder allocates memory for all of it.
func windowSize(n int) int {
	return 1 << min(max(bits.Len(uint(max(n-1, 0))), 12), 23)
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
