package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// blob is one content to store, with the files that have it. The first file
// becomes a regular tar member, the others become hard links to it.
type blob struct {
	files   []File
	extents []extent
	sparse  bool
}

func (b *blob) file() File { return b.files[0] }

// stored returns the size of the member in the archive.
func (b *blob) stored() int64 {
	n := dataBytes(b.extents)
	if b.sparse {
		n += int64(len(sparseMap(b.extents, b.file().Size)))
	}
	return n
}

// framePlan is a frame before it is encoded.
type framePlan struct {
	group string
	blobs []*blob
	last  bool // ends with the two zero blocks that end a tar archive
}

// planFrames divides the blobs of each group into frames of about frameSize bytes
// of data; a larger file has a frame of its own. The core group comes first, so
// that a reader for one target reads the start of the pack and one further range.
func planFrames(blobs []*blob, targets []gfx.Target, frameSize int64) []*framePlan {
	groups := []string{groupCore}
	for _, t := range targets {
		groups = append(groups, string(t))
	}
	var plans []*framePlan
	for _, g := range groups {
		var cur *framePlan
		var n int64
		for _, b := range blobs {
			if b.group() != g {
				continue
			}
			size := b.stored()
			if cur == nil || n+size > frameSize {
				cur, n = &framePlan{group: g}, 0
				plans = append(plans, cur)
			}
			cur.blobs = append(cur.blobs, b)
			n += size
		}
	}
	return plans
}

// group returns the only target that needs the content, else groupCore.
func (b *blob) group() string {
	t := b.file().Target
	for _, f := range b.files[1:] {
		if f.Target != t {
			return groupCore
		}
	}
	if t == "" {
		return groupCore
	}
	return string(t)
}

// scanFiles reads every file of the manifest once, compares it with the manifest,
// finds its holes, and groups equal files. The result is sorted by the first path
// of each blob.
func scanFiles(ctx context.Context, root *os.Root, m *Manifest, workers int) ([]*blob, error) {
	scanned := make([]*blob, len(m.Files))
	err := forEach(ctx, len(m.Files), workers, func(ctx context.Context, i int) error {
		b, err := scanFile(ctx, root, m.Files[i])
		scanned[i] = b
		return err
	})
	if err != nil {
		return nil, err
	}
	groups := groupEqual(m.Files)
	out := make([]*blob, len(groups))
	for k, g := range groups {
		out[k] = scanned[g[0]]
		for _, i := range g[1:] {
			out[k].files = append(out[k].files, m.Files[i])
		}
	}
	return out, nil
}

func scanFile(ctx context.Context, root *os.Root, f File) (*blob, error) {
	in, err := root.Open(f.Path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	st, err := in.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() != f.Size {
		return nil, fmt.Errorf("%w: %s is a %s of %d bytes, the manifest says a file of %d", ErrContent, f.Path, regfile.Kind(st.Mode().Type()), st.Size(), f.Size)
	}
	h, projections := sha256.New(), newProjector(&f)
	ext, size, err := scanExtents(ctxio.Reader(ctx, in), io.MultiWriter(h, projections))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Path, err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); size != f.Size || sum != f.SHA256 {
		return nil, fmt.Errorf("%w: %s has sha256 %s, the manifest says %s", ErrContent, f.Path, sum, f.SHA256)
	}
	if err := projections.check(&f); err != nil {
		return nil, err
	}
	b := &blob{files: []File{f}}
	b.extents, b.sparse = chooseSparse(ext, size)
	return b, nil
}

const (
	// holeBlock is the granularity of holes: the usual block of a file system.
	holeBlock = 4096
	// minHole is the shortest run of zeros that is stored as a hole. Shorter ones
	// need more space in the map than they save.
	minHole = 4 * holeBlock
	// maxExtents limits a sparse map.
	maxExtents = 1 << 16
	// maxMapSize limits an encoded map: two numbers of at most 15 digits for each
	// extent.
	maxMapSize = maxExtents*2*16 + 2*tarBlock
)

// extent is a run of data in a sparse file.
type extent struct{ off, len int64 }

func (e extent) end() int64 { return e.off + e.len }

// scanExtents reads a file once and returns its extents with data; everything
// else is zero. It examines the bytes and not the file system's holes, so that the
// result depends only on the content. It writes every byte to tee.
func scanExtents(r io.Reader, tee io.Writer) (ext []extent, size int64, err error) {
	buf := make([]byte, 64*holeBlock)
	var zero [holeBlock]byte
	for {
		n, err := io.ReadFull(r, buf)
		if _, werr := tee.Write(buf[:n]); werr != nil {
			return nil, 0, werr
		}
		for i := 0; i < n; i += holeBlock {
			b := buf[i:min(i+holeBlock, n)]
			if bytes.Equal(b, zero[:len(b)]) {
				continue
			}
			off := size + int64(i)
			if k := len(ext) - 1; k >= 0 && off-ext[k].end() < minHole {
				ext[k].len = off + int64(len(b)) - ext[k].off
			} else {
				ext = append(ext, extent{off, int64(len(b))})
			}
		}
		size += int64(n)
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return ext, size, nil
		default:
			return nil, 0, err
		}
	}
}

// chooseSparse decides whether a file is stored as a sparse member, and with which
// extents. A file without a worthwhile hole is stored whole.
func chooseSparse(ext []extent, size int64) ([]extent, bool) {
	for len(ext) > maxExtents-1 {
		ext = mergePairs(ext)
	}
	if dataBytes(ext) > size-minHole {
		return []extent{{0, size}}, false
	}
	return ext, true
}

// mergePairs halves an oversized map by joining adjacent extents pairwise.
func mergePairs(ext []extent) []extent {
	out := ext[:0]
	for i := 0; i < len(ext); i += 2 {
		e := ext[i]
		if i+1 < len(ext) {
			e.len = ext[i+1].end() - e.off
		}
		out = append(out, e)
	}
	return out
}

func dataBytes(ext []extent) int64 {
	var n int64
	for _, e := range ext {
		n += e.len
	}
	return n
}

// sparseMap encodes the map that precedes the data in GNU tar's pax sparse format
// 1.0: decimal numbers on lines of their own (count, then offset and length of
// each extent), padded to whole blocks. A final empty extent marks the end of a
// file that ends with a hole.
func sparseMap(ext []extent, size int64) []byte {
	if k := len(ext) - 1; k < 0 || ext[k].end() != size {
		ext = append(ext[:len(ext):len(ext)], extent{size, 0})
	}
	var b []byte
	line := func(v int64) { b = append(strconv.AppendInt(b, v, 10), '\n') }
	line(int64(len(ext)))
	for _, e := range ext {
		line(e.off)
		line(e.len)
	}
	return append(b, make([]byte, padding(int64(len(b))))...)
}

// mapReader parses a sparse map, which it reads in whole tar blocks.
type mapReader struct {
	r     io.Reader
	block [tarBlock]byte
	left  []byte
	all   []byte // all bytes read
}

// number parses one decimal number and its newline.
func (m *mapReader) number() (int64, error) {
	var v int64
	for digits := 0; ; digits++ {
		if len(m.left) == 0 {
			if _, err := io.ReadFull(m.r, m.block[:]); err != nil {
				return 0, fmt.Errorf("%w: unexpected end of a sparse map: %w", ErrContent, err)
			}
			m.left = m.block[:]
			m.all = append(m.all, m.left...)
		}
		c := m.left[0]
		m.left = m.left[1:]
		switch {
		case c == '\n' && digits > 0:
			return v, nil
		case c < '0' || c > '9' || digits > 15: // 10^16 is beyond MaxTotalSize
			return 0, fmt.Errorf("%w: sparse map has %q in a number", ErrContent, c)
		}
		v = v*10 + int64(c-'0')
	}
}

// readSparseMap parses a sparse map. It returns the extents with data and the
// number of bytes read. It rejects extents that overlap, are not in ascending order
// or leave the file, and any encoding other than that of sparseMap. stored is the
// member's size in the archive.
func readSparseMap(r io.Reader, size, stored int64) ([]extent, int64, error) {
	m := mapReader{r: r}
	n, err := m.number()
	if err != nil {
		return nil, 0, err
	}
	if n < 1 || n > maxExtents {
		return nil, 0, fmt.Errorf("%w: sparse map of %d extents", ErrContent, n)
	}
	ext := make([]extent, 0, min(n, 1024))
	var end, data int64
	for range n {
		var e extent
		if e.off, err = m.number(); err != nil {
			return nil, 0, err
		}
		if e.len, err = m.number(); err != nil {
			return nil, 0, err
		}
		if e.off < end || e.off > size || e.len > size-e.off {
			return nil, 0, fmt.Errorf("%w: sparse extent %d+%d in a file of %d bytes", ErrContent, e.off, e.len, size)
		}
		end = e.end()
		data += e.len
		if e.len > 0 {
			ext = append(ext, e)
		}
	}
	read := int64(len(m.all))
	if read+data != stored {
		return nil, 0, fmt.Errorf("%w: sparse member of %d bytes has %d bytes of map and %d of data", ErrContent, stored, read, data)
	}
	if !bytes.Equal(m.all, sparseMap(ext, size)) {
		return nil, 0, fmt.Errorf("%w: sparse map in an encoding that packs do not use", ErrContent)
	}
	return ext, read, nil
}
