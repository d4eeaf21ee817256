package elfdep

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sort"
)

// extent is a range of file offsets.
type extent struct{ from, to int64 }

// overlay gives the bytes of a file with some ranges as zeros and one range
// replaced.
type overlay struct {
	r     io.ReaderAt
	zero  []extent // sorted, disjoint
	patch []byte
	at    int64 // offset of patch
}

// ReadAt implements io.ReaderAt. It does not read what it clears.
func (o *overlay) ReadAt(b []byte, off int64) (int, error) {
	end := off + int64(len(b))
	i := sort.Search(len(o.zero), func(i int) bool { return o.zero[i].to > off })
	if i < len(o.zero) && o.zero[i].from <= off && o.zero[i].to >= end {
		clear(b)
		return len(b), nil
	}
	n, err := o.r.ReadAt(b, off)
	for ; i < len(o.zero) && o.zero[i].from < end; i++ {
		clear(b[max(o.zero[i].from-off, 0):min(o.zero[i].to-off, int64(len(b)))])
	}
	if from, to := max(o.at, off), min(o.at+int64(len(o.patch)), off+int64(n)); from < to {
		copy(b[from-off:to-off], o.patch[from-o.at:])
	}
	return n, err
}

// sparseBlock is the unit in which zeros become holes: a file system block.
const sparseBlock = 4096

// CopySparse copies size bytes of r to the start of w, which must be empty,
// and leaves every aligned block of zeros a hole. What it writes depends on
// the bytes of r alone.
func CopySparse(w *os.File, r io.ReaderAt, size int64) error {
	buf := make([]byte, 256*sparseBlock)
	for off := int64(0); off < size; off += int64(len(buf)) {
		b := buf[:min(int64(len(buf)), size-off)]
		if err := readFull(r, b, off); err != nil {
			return err
		}
		for at := 0; at < len(b); {
			for at < len(b) && isZero(block(b, at)) {
				at += len(block(b, at))
			}
			from := at
			for at < len(b) && !isZero(block(b, at)) {
				at += len(block(b, at))
			}
			if from == at {
				continue
			}
			if _, err := w.WriteAt(b[from:at], off+int64(from)); err != nil {
				return err
			}
		}
	}
	return w.Truncate(size)
}

func block(b []byte, at int) []byte { return b[at:min(at+sparseBlock, len(b))] }

func isZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// replaceFile writes a new file beside path by fill and puts it in the place
// of the old one. Where anything fails the old file stays and no other is left.
func replaceFile(path string, old *os.File, fill func(w *os.File, size int64) error) (err error) {
	fi, err := old.Stat()
	if err != nil {
		return err
	}
	w, err := os.CreateTemp(filepath.Dir(path), ".slim-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(w.Name()))
		}
	}()
	err = fill(w, fi.Size())
	if err == nil {
		err = w.Chmod(fi.Mode().Perm())
	}
	// Synced before the rename, so that a crash leaves the old or the new
	// file, never an empty one.
	if err == nil {
		err = w.Sync()
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	return os.Rename(w.Name(), path)
}
