// Package sparse writes files whose zeros take no space on disk.
package sparse

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
)

// blockSize is the unit in which zeros become holes: a block of the file system.
const blockSize = 4096

// Copy copies r to the start of w, which must be empty, and returns the number
// of bytes. Aligned blocks of zeros become holes. The result depends on the bytes
// of r alone, not on how its reads are split.
func Copy(w *os.File, r io.Reader) (int64, error) {
	buf := make([]byte, 256*blockSize)
	var size int64
	for {
		n, err := io.ReadFull(r, buf)
		if err := WriteAt(w, buf[:n], size); err != nil {
			return size, err
		}
		size += int64(n)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return size, w.Truncate(size)
		case err != nil:
			return size, err
		}
	}
}

// WriteAt writes b at offset off of w, except for the blocks of the file that b fills
// with zeros: where w has no data yet, they stay holes. It writes adjacent blocks by
// one call.
func WriteAt(w io.WriterAt, b []byte, off int64) error {
	block := func(at int) []byte {
		return b[at:min(at+blockSize-int((off+int64(at))%blockSize), len(b))]
	}
	for at := 0; at < len(b); {
		for at < len(b) && isZero(block(at)) {
			at += len(block(at))
		}
		from := at
		for at < len(b) && !isZero(block(at)) {
			at += len(block(at))
		}
		if from == at {
			continue
		}
		if _, err := w.WriteAt(b[from:at], off+int64(from)); err != nil {
			return err
		}
	}
	return nil
}

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

// WriteFile creates the file name with the content of r. An existing file is an
// error.
func WriteFile(name string, r io.Reader, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = Copy(f, r)
	return errors.Join(err, f.Chmod(mode), f.Close())
}

// CopyFile creates the file to with the content of the file from.
func CopyFile(from, to string, mode fs.FileMode) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return WriteFile(to, f, mode)
}

// Range is a range of file offsets.
type Range struct{ From, To int64 }

// Edit is a change of a file's bytes that leaves its size as it is.
type Edit struct {
	Zero   []Range // ranges to clear, sorted and disjoint
	Patch  []byte  // bytes to put in place of those at Offset
	Offset int64
}

// Rewrite replaces the file at path, which old is open on, by an edited copy with
// the same mode. The file is replaced at once, under a new inode. When Rewrite
// fails the old file stays and no other is left; a process killed meanwhile
// leaves a file .rewrite-* beside the old one.
func Rewrite(path string, old *os.File, e Edit) (err error) {
	fi, err := old.Stat()
	if err != nil {
		return err
	}
	w, err := os.CreateTemp(filepath.Dir(path), ".rewrite-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(w.Name()))
		}
	}()
	n, err := Copy(w, io.NewSectionReader(&edited{Edit: e, r: old}, 0, fi.Size()))
	if err == nil && n != fi.Size() {
		err = fmt.Errorf("%s shrank from %d to %d bytes while it was copied", path, fi.Size(), n)
	}
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

// edited reads a file with an edit applied.
type edited struct {
	Edit
	r io.ReaderAt
}

// ReadAt implements io.ReaderAt. It does not read what it clears.
func (o *edited) ReadAt(b []byte, off int64) (int, error) {
	end := off + int64(len(b))
	i := sort.Search(len(o.Zero), func(i int) bool { return o.Zero[i].To > off })
	if i < len(o.Zero) && o.Zero[i].From <= off && o.Zero[i].To >= end {
		clear(b)
		return len(b), nil
	}
	n, err := o.r.ReadAt(b, off)
	for ; i < len(o.Zero) && o.Zero[i].From < end; i++ {
		clear(b[max(o.Zero[i].From-off, 0):min(o.Zero[i].To-off, int64(len(b)))])
	}
	if from, to := max(o.Offset, off), min(o.Offset+int64(len(o.Patch)), off+int64(n)); from < to {
		copy(b[from-off:to-off], o.Patch[from-o.Offset:])
	}
	return n, err
}
