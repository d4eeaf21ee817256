package payload

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// MaxPartSize is the size of a part in bytes: 95 MiB, below the 100 MB limit of git
// hosts.
const MaxPartSize = 95 << 20

const maxParts = 1000

// MultiReaderAt is the concatenation of several readers. It is safe for concurrent
// use if its parts are.
type MultiReaderAt struct {
	parts []io.ReaderAt
	ends  []int64 // offset of the end of each part
}

// NewMultiReaderAt concatenates readers of the given sizes in bytes.
func NewMultiReaderAt(parts []io.ReaderAt, sizes []int64) (*MultiReaderAt, error) {
	if len(parts) != len(sizes) {
		return nil, fmt.Errorf("%d parts and %d sizes", len(parts), len(sizes))
	}
	p := new(MultiReaderAt)
	for i, r := range parts {
		if sizes[i] < 0 {
			return nil, fmt.Errorf("part %d has the size %d", i, sizes[i])
		}
		p.add(r, sizes[i])
	}
	return p, nil
}

func (p *MultiReaderAt) add(r io.ReaderAt, size int64) {
	p.parts = append(p.parts, r)
	p.ends = append(p.ends, p.Size()+size)
}

// Size returns the total size in bytes.
func (p *MultiReaderAt) Size() int64 {
	if len(p.ends) == 0 {
		return 0
	}
	return p.ends[len(p.ends)-1]
}

// ReadAt implements io.ReaderAt.
func (p *MultiReaderAt) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read bundle parts: negative offset")
	}
	i, found := slices.BinarySearch(p.ends, off)
	if found {
		i++ // part i ends at off, so the next part contains it
	}
	n := 0
	for ; n < len(b) && i < len(p.parts); i++ {
		var start int64
		if i > 0 {
			start = p.ends[i-1]
		}
		at := off + int64(n) - start
		want := min(int64(len(b)-n), p.ends[i]-start-at)
		if want <= 0 {
			continue // an empty part
		}
		k, err := p.parts[i].ReadAt(b[n:n+int(want)], at)
		n += k
		if int64(k) < want {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // the part is shorter than its size
			}
			return n, fmt.Errorf("read bundle part %d: %w", i, err)
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// PartName returns the file name of a variant's n-th part.
func PartName(variant string, n int) string {
	return fmt.Sprintf("%s%s%s.%03d", prefix, variant, packSuffix, n)
}

// parsePartName is the inverse of PartName; ok is false for other names.
func parsePartName(name string) (variant string, n int, ok bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok || len(rest) < 4 || rest[len(rest)-4] != '.' {
		return "", 0, false
	}
	n, err := strconv.Atoi(rest[len(rest)-3:])
	variant, ok = strings.CutSuffix(rest[:len(rest)-4], packSuffix)
	if err != nil || !ok || variant == "" || n < 0 || PartName(variant, n) != name {
		return "", 0, false
	}
	return variant, n, true
}

// WriteParts splits a variant's packed bundle into parts of at most partSize bytes
// (0: MaxPartSize) in dir, and returns their names. It writes all parts under
// temporary names, renames them, and then removes additional parts of an earlier
// build of that variant.
func WriteParts(dir, variant string, packed io.Reader, partSize int64) ([]string, error) {
	if partSize == 0 {
		partSize = MaxPartSize
	}
	if partSize < 0 || partSize > MaxPartSize {
		return nil, fmt.Errorf("write bundle parts: part size %d is outside 1..%d", partSize, int64(MaxPartSize))
	}
	if _, _, ok := parsePartName(PartName(variant, 0)); !ok || strings.ContainsAny(variant, `/\`) {
		return nil, fmt.Errorf("write bundle parts: bad variant name %q", variant)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("write bundle parts: %w", err)
	}
	defer func() { _ = root.Close() }()
	names, err := writeParts(root, variant, packed, partSize)
	if err != nil {
		for _, n := range names {
			_ = root.Remove(tempName(n)) // the caller reports the first error
		}
		return nil, fmt.Errorf("write bundle parts: %w", err)
	}
	return names, nil
}

func tempName(part string) string { return "." + part + ".new" }

func writeParts(root *os.Root, variant string, packed io.Reader, partSize int64) ([]string, error) {
	var names []string
	for {
		if len(names) == maxParts {
			return names, fmt.Errorf("more than %d parts of %d bytes", maxParts, partSize)
		}
		name := PartName(variant, len(names))
		names = append(names, name)
		n, err := writePart(root, tempName(name), io.LimitReader(packed, partSize))
		if err != nil {
			return names, err
		}
		if n == 0 {
			if err := root.Remove(tempName(name)); err != nil {
				return names, err
			}
			names = names[:len(names)-1]
			break
		}
		if n < partSize {
			break
		}
	}
	if len(names) == 0 {
		return nil, errors.New("the packed bundle is empty")
	}
	for _, n := range names {
		if err := root.Rename(tempName(n), n); err != nil {
			return names, err
		}
	}
	return names, removeLater(root, variant, len(names))
}

func writePart(root *os.Root, name string, r io.Reader) (int64, error) {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(f, r)
	return n, errors.Join(err, f.Close())
}

// removeLater removes the parts from number n on, of an earlier, larger bundle.
func removeLater(root *os.Root, variant string, n int) error {
	for ; n < maxParts; n++ {
		err := root.Remove(PartName(variant, n))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}
