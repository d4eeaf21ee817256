package gpu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// maxFile limits how much of one attribute is read; sysfs returns at most a page.
const maxFile = 64 << 10

// FS reads a machine's files below a root.
type FS struct {
	root string
}

// NewFS returns an FS that reads below root: "/" for this machine, another directory
// for a tree that describes one.
func NewFS(root string) FS { return FS{root: root} }

func (f FS) path(elem ...string) string {
	return filepath.Join(append([]string{f.root}, elem...)...)
}

// read returns the content of an attribute without surrounding white space.
func (f FS) read(elem ...string) ([]byte, error) {
	b, err := f.readRaw(elem...)
	return bytes.TrimSpace(b), err
}

// readRaw returns the content of an attribute.
func (f FS) readRaw(elem ...string) ([]byte, error) {
	h, err := os.Open(f.path(elem...))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(h, maxFile))
	return b, errors.Join(err, h.Close())
}

// number reads an attribute that contains one non-negative number, in decimal or
// with a 0x prefix.
func (f FS) number(elem ...string) (uint64, error) {
	b, err := f.read(elem...)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(string(b), 0, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Join(elem...), err)
	}
	return n, nil
}

// optional is number for attributes that may be missing; it returns 0 then.
func (f FS) optional(elem ...string) uint64 {
	n, err := f.number(elem...)
	if err != nil {
		return 0
	}
	return n
}

// numbered returns the numbers of the directory entries that consist of prefix and
// a decimal number, in numeric order.
func (f FS) numbered(prefix string, elem ...string) ([]int, error) {
	entries, err := os.ReadDir(f.path(elem...))
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range entries {
		rest, ok := bytes.CutPrefix([]byte(e.Name()), []byte(prefix))
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(string(rest), 10, 31); err == nil {
			out = append(out, int(n))
		}
	}
	slices.Sort(out)
	return out, nil
}

func (f FS) exists(elem ...string) bool {
	_, err := os.Stat(f.path(elem...))
	return !errors.Is(err, fs.ErrNotExist)
}
