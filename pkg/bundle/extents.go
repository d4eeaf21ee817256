package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Extent is a run of bytes in a file.
type Extent struct{ Offset, Size int64 }

// end is the offset behind the extent.
func (e Extent) end() int64 { return e.Offset + e.Size }

// Extents are runs of bytes in a file, ascending. Their text, in a manifest
// too, is "OFFSET+SIZE OFFSET+SIZE …" in decimal: a fat binary has hundreds,
// and as JSON objects they would be what reading a manifest takes longest for.
type Extents []Extent

// MarshalText implements encoding.TextMarshaler.
func (x Extents) MarshalText() ([]byte, error) {
	b := make([]byte, 0, 20*len(x))
	for i, e := range x {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(strconv.AppendInt(b, e.Offset, 10), '+')
		b = strconv.AppendInt(b, e.Size, 10)
	}
	return b, nil
}

// UnmarshalText implements encoding.TextUnmarshaler. Numbers must be below
// 10^18; the rest is for Manifest.Validate to judge.
func (x *Extents) UnmarshalText(text []byte) error {
	out := make(Extents, 0, min(bytes.Count(text, []byte{'+'}), len(text)/len("0+0 ")+1))
	for rest := text; ; {
		var e Extent
		var ok1, ok2 bool
		e.Offset, rest, ok1 = digits(rest)
		if !ok1 || len(rest) == 0 || rest[0] != '+' {
			return errors.New("extents: want OFFSET+SIZE")
		}
		if e.Size, rest, ok2 = digits(rest[1:]); !ok2 {
			return errors.New("extents: want OFFSET+SIZE")
		}
		out = append(out, e)
		if len(rest) == 0 {
			*x = out
			return nil
		}
		if rest[0] != ' ' {
			return errors.New("extents: want one space between two")
		}
		rest = rest[1:]
	}
}

// digits takes a number of 1 to 18 digits off b.
func digits(b []byte) (v int64, rest []byte, ok bool) {
	i := 0
	for ; i < len(b) && '0' <= b[i] && b[i] <= '9'; i++ {
		v = v*10 + int64(b[i]-'0')
		if i == 18 {
			return 0, b, false
		}
	}
	return v, b[i:], i > 0
}

// clear makes the bytes of b zero that lie in the extents; b is what stands at
// the file's offset off. It reports whether there were any.
func (x Extents) clear(b []byte, off int64) bool {
	i, _ := slices.BinarySearchFunc(x, off, func(e Extent, off int64) int {
		if e.end() <= off {
			return -1
		}
		return 1
	})
	first, end := i, off+int64(len(b))
	for ; i < len(x) && x[i].Offset < end; i++ {
		clear(b[max(x[i].Offset-off, 0):min(x[i].end()-off, int64(len(b)))])
	}
	return i > first
}

// check reports extents that are empty, outside of a file of that size, or not
// one after another.
func (x Extents) check(size int64) error {
	var end int64
	for _, e := range x {
		switch {
		case e.Offset < 0 || e.Size <= 0 || e.Offset > size || e.Size > size-e.Offset:
			return fmt.Errorf("extent %d+%d in a file of %d bytes", e.Offset, e.Size, size)
		case e.Offset < end:
			return fmt.Errorf("extent %d+%d begins before %d, where the one before it ends", e.Offset, e.Size, end)
		}
		end = e.end()
	}
	return nil
}
