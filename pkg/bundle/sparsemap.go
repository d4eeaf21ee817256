package bundle

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
)

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
