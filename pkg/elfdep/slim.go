package elfdep

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// SlimStats says what Slim took out.
type SlimStats struct {
	Bundles int          // offload bundles seen
	Kept    int          // code objects that stay
	Removed int          // code objects taken out
	Bytes   int64        // size of those taken out
	Dropped []gfx.Target // targets taken out, sorted
}

// ErrCompressedBundle says that Slim met a compressed offload bundle. Its
// entries cannot be cleared in place: build with --no-offload-compress, as
// Debian's rocBLAS and this module's recipes do.
var ErrCompressedBundle = errors.New("compressed offload bundle cannot be slimmed in place; build with --no-offload-compress")

// extent is a range of file offsets.
type extent struct{ from, to int64 }

// Slim takes the code objects of all targets but keep out of the ELF file at
// path: their bytes become zero and their size in the bundle's table 0, so the
// HIP runtime finds no code for such a device instead of broken code. All
// offsets stay, so nothing else in the file changes; the file's size stays,
// and the cleared ranges become holes. A file of which every bundle is already
// slim comes out byte for byte the same.
//
// The new file replaces the old one at once, under a new inode, with the old
// mode. A kept target that some bundle lacks is a *TargetError, and the file
// stays as it was.
func Slim(path string, keep []gfx.Target) (SlimStats, error) {
	if len(keep) == 0 {
		return SlimStats{}, errors.New("slim: no target to keep")
	}
	var stats SlimStats
	err := withFatBinary(path, func(fb *FatBinary, f *os.File) error {
		plan, err := planSlim(path, fb, keep)
		if err != nil {
			return err
		}
		stats = plan.stats
		return replaceFile(path, f, func(w *os.File, size int64) error {
			return copySparse(w, &slimReader{r: f, plan: plan}, size)
		})
	})
	return stats, err
}

type slimPlan struct {
	stats SlimStats
	zero  []extent // sorted, disjoint
}

func planSlim(path string, fb *FatBinary, keep []gfx.Target) (*slimPlan, error) {
	p := new(slimPlan)
	var kept []extent
	for _, b := range fb.Bundles {
		if b.Compressed != nil {
			return nil, fmt.Errorf("bundle at offset %#x: %w", b.Offset, ErrCompressedBundle)
		}
		p.stats.Bundles++
		has := map[gfx.Target]bool{}
		for _, e := range b.Entries {
			if e.ID.Host() || e.Size == 0 {
				continue
			}
			t := e.ID.ID.Target
			x := extent{b.Offset + e.Offset, b.Offset + e.Offset + e.Size}
			if slices.Contains(keep, t) {
				has[t] = true
				p.stats.Kept++
				kept = append(kept, x)
				continue
			}
			p.stats.Removed++
			p.stats.Bytes += e.Size
			p.stats.Dropped = append(p.stats.Dropped, t)
			p.zero = append(p.zero, x, extent{b.Offset + e.sizeField, b.Offset + e.sizeField + 8})
		}
		if lacks := missingTargets(keep, has); len(lacks) > 0 && len(b.Entries) > 0 {
			return nil, &TargetError{Path: fmt.Sprintf("%s (bundle at offset %#x)", path, b.Offset), Lacks: lacks}
		}
	}
	gfx.Sort(p.stats.Dropped)
	p.stats.Dropped = slices.Compact(p.stats.Dropped)
	sort.Slice(p.zero, func(i, j int) bool { return p.zero[i].from < p.zero[j].from })
	for _, k := range kept {
		i := sort.Search(len(p.zero), func(i int) bool { return p.zero[i].to > k.from })
		if i < len(p.zero) && p.zero[i].from < k.to {
			return nil, &FormatError{What: "offload bundle", Err: fmt.Errorf("code objects overlap at offset %#x", p.zero[i].from)}
		}
	}
	return p, nil
}

func missingTargets(want []gfx.Target, has map[gfx.Target]bool) []gfx.Target {
	var out []gfx.Target
	for _, t := range want {
		if !has[t] {
			out = append(out, t)
		}
	}
	return out
}

// slimReader gives the file with the ranges of the plan as zeros.
type slimReader struct {
	r    io.ReaderAt
	plan *slimPlan
}

// ReadAt implements io.ReaderAt. It does not read what it clears.
func (s *slimReader) ReadAt(b []byte, off int64) (int, error) {
	end := off + int64(len(b))
	z := s.plan.zero
	i := sort.Search(len(z), func(i int) bool { return z[i].to > off })
	if i < len(z) && z[i].from <= off && z[i].to >= end {
		clear(b)
		return len(b), nil
	}
	n, err := s.r.ReadAt(b, off)
	for ; i < len(z) && z[i].from < end; i++ {
		clear(b[max(z[i].from-off, 0):min(z[i].to-off, int64(len(b)))])
	}
	return n, err
}

// sparseBlock is the unit in which zeros become holes: a file system block.
const sparseBlock = 4096

// CopySparse copies size bytes of r to the start of w, which must be empty,
// and leaves every aligned block of zeros a hole. What it writes depends on
// the bytes of r alone.
func CopySparse(w *os.File, r io.ReaderAt, size int64) error { return copySparse(w, r, size) }

func copySparse(w *os.File, r io.ReaderAt, size int64) error {
	buf := make([]byte, 256*sparseBlock)
	for off := int64(0); off < size; off += int64(len(buf)) {
		b := buf[:min(int64(len(buf)), size-off)]
		if _, err := r.ReadAt(b, off); err != nil {
			return noEOF(err)
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
