package gguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// windowBytes is the size of the read buffer: large enough that a vocabulary of
// several megabytes needs few system calls, small enough for the second-level cache.
const windowBytes = 64 << 10

// cursor reads a file sequentially through one buffer. It never reads past size and
// checks every advance against the remaining bytes.
type cursor struct {
	r    io.ReaderAt
	size int64 // where reading ends
	file int64 // the size of the file, of which only the first bytes may be read
	base int64 // file offset of buf[0]
	buf  []byte
	pos  int // next unread byte in buf
	part string
}

func newCursor(r io.ReaderAt, off, size int64) *cursor {
	n := min(int64(windowBytes), max(size-off, 0))
	return &cursor{r: r, size: size, file: size, base: off, buf: make([]byte, 0, n), part: "header"}
}

func (c *cursor) offset() int64 { return c.base + int64(c.pos) }
func (c *cursor) left() uint64  { return uint64(c.size - c.offset()) }

func (c *cursor) fail(err error, format string, args ...any) error {
	return &FormatError{Offset: c.offset(), Part: c.part, Reason: fmt.Sprintf(format, args...), Err: err}
}

// tooShort returns the error that n bytes are asked for and fewer are left: the file
// ends before, or more of it would be read than a header has. What describes them.
func (c *cursor) tooShort(n uint64, what string, args ...any) error {
	if n <= uint64(c.file-c.offset()) {
		return c.fail(ErrMalformed, what+": %d bytes before the tensor data are more than %d", append(args, uint64(c.offset())+n, c.size)...)
	}
	return c.fail(ErrTruncated, what+", but only %d bytes remain", append(args, c.left())...)
}

// times multiplies, and returns the largest number where the product is larger.
func times(a, b uint64) uint64 {
	p, ok := mul(a, b)
	if !ok {
		return math.MaxUint64
	}
	return p
}

// rewind goes back to the beginning of the file and fills the window.
func (c *cursor) rewind() error {
	c.base, c.pos, c.buf = 0, 0, c.buf[:0]
	if c.size == 0 {
		return nil
	}
	return c.fill(1)
}

// fill makes at least n unread bytes available, n at most the window.
func (c *cursor) fill(n int) error {
	if len(c.buf)-c.pos >= n {
		return nil
	}
	if uint64(n) > c.left() {
		return c.tooShort(uint64(n), "%d bytes wanted", n)
	}
	kept := copy(c.buf[:cap(c.buf)], c.buf[c.pos:])
	c.base += int64(c.pos)
	c.pos = 0
	want := min(int64(cap(c.buf)), c.size-c.base)
	c.buf = c.buf[:want]
	got, err := c.r.ReadAt(c.buf[kept:], c.base+int64(kept))
	if got < int(want)-kept {
		c.buf = c.buf[:kept]
		if err == nil || errors.Is(err, io.EOF) {
			return c.fail(ErrTruncated, "the file shrank to %d bytes while it was read", c.base+int64(kept+got))
		}
		return fmt.Errorf("read %d bytes at %d: %w", int(want)-kept, c.base+int64(kept), err)
	}
	return nil
}

func (c *cursor) u32() (uint32, error) {
	if err := c.fill(4); err != nil {
		return 0, err
	}
	v := binary.LittleEndian.Uint32(c.buf[c.pos:])
	c.pos += 4
	return v, nil
}

func (c *cursor) u64() (uint64, error) {
	if err := c.fill(8); err != nil {
		return 0, err
	}
	v := binary.LittleEndian.Uint64(c.buf[c.pos:])
	c.pos += 8
	return v, nil
}

// fixed reads an unsigned number of 1, 2, 4 or 8 bytes.
func (c *cursor) fixed(width int) (uint64, error) {
	if err := c.fill(width); err != nil {
		return 0, err
	}
	v := number(c.buf[c.pos:], width)
	c.pos += width
	return v, nil
}

// number decodes an unsigned little-endian number of 1, 2, 4 or 8 bytes.
func number(b []byte, width int) uint64 {
	switch width {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	default:
		return binary.LittleEndian.Uint64(b)
	}
}

// skip skips n bytes without reading them.
func (c *cursor) skip(n uint64) error {
	if n > c.left() {
		return c.tooShort(n, "%d bytes", n)
	}
	if in := uint64(len(c.buf) - c.pos); n <= in {
		c.pos += int(n)
		return nil
	}
	c.base = c.offset() + int64(n)
	c.buf, c.pos = c.buf[:0], 0
	return nil
}

// appendBytes reads n bytes and appends them to dst.
func (c *cursor) appendBytes(dst []byte, n uint64) ([]byte, error) {
	if n > c.left() {
		return dst, c.tooShort(n, "%d bytes", n)
	}
	for n > 0 {
		if c.pos == len(c.buf) {
			if err := c.fill(1); err != nil {
				return dst, err
			}
		}
		k := min(n, uint64(len(c.buf)-c.pos))
		dst = append(dst, c.buf[c.pos:c.pos+int(k)]...)
		c.pos += int(k)
		n -= k
	}
	return dst, nil
}

// skipStrings skips n length-prefixed strings. The loop works on local copies: a
// vocabulary has several hundred thousand strings, and most of the time of opening
// a model is spent here.
func (c *cursor) skipStrings(n uint64) error {
	if n > c.left()/8 {
		return c.tooShort(times(n, 8), "an array of %d strings", n)
	}
	for n > 0 {
		buf, pos := c.buf, c.pos
		for n > 0 && pos+8 <= len(buf) {
			l := binary.LittleEndian.Uint64(buf[pos:])
			if l > uint64(len(buf)-pos-8) {
				break // ends outside the window: the slow way below
			}
			pos += 8 + int(l)
			n--
		}
		c.pos = pos
		if n == 0 {
			return nil
		}
		l, err := c.u64()
		if err != nil {
			return err
		}
		if err := c.skip(l); err != nil {
			return err
		}
		n--
	}
	return nil
}
