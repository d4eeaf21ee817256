package gguf

import (
	"fmt"
	"io"
	"iter"
)

// Array is a metadata array whose elements stay in the file. Its methods read them
// through a small buffer on each call.
type Array struct {
	r    io.ReaderAt
	off  int64 // of the first element
	end  int64 // past the last element
	elem ValueType
	n    uint64
}

// Len is the number of elements.
func (a Array) Len() uint64 { return a.n }

// Elem is the type of the elements.
func (a Array) Elem() ValueType { return a.elem }

// Bytes is the size of the elements in the file, lengths included.
func (a Array) Bytes() int64 { return a.end - a.off }

// Strings yields the elements of an array of strings. It stops at the first error,
// which it yields with an empty string: ErrType for an array of another type,
// ErrMalformed for a string of more than 16 MiB.
func (a Array) Strings() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if a.elem != String {
			yield("", fmt.Errorf("%w: an array of %s, not of strings", ErrType, a.elem))
			return
		}
		c := newCursor(a.r, a.off, a.end)
		c.part = "metadata"
		var buf []byte
		for range a.n {
			l, err := c.u64()
			if err == nil && l > maxElement && l <= c.left() {
				err = c.fail(ErrMalformed, "a string of %d bytes in an array, more than %d", l, maxElement)
			}
			if err == nil {
				buf, err = c.appendBytes(buf[:0], l)
			}
			if err != nil {
				yield("", err)
				return
			}
			if !yield(string(buf), nil) {
				return
			}
		}
	}
}

// Values yields the elements of an array of numbers or bools.
func (a Array) Values() iter.Seq2[Value, error] {
	return func(yield func(Value, error) bool) {
		w := a.elem.width()
		if w == 0 {
			yield(Value{}, fmt.Errorf("%w: an array of %s, not of numbers", ErrType, a.elem))
			return
		}
		c := newCursor(a.r, a.off, a.end)
		c.part = "metadata"
		for range a.n {
			bits, err := c.fixed(w)
			if err != nil {
				yield(Value{}, err)
				return
			}
			if !yield(Value{typ: a.elem, num: bits}, nil) {
				return
			}
		}
	}
}

// Uints returns the elements of an array of non-negative integers, or of bools as 0
// and 1. It returns an error for an array longer than limit.
func (a Array) Uints(limit int) ([]uint64, error) {
	if a.n > uint64(max(limit, 0)) {
		return nil, fmt.Errorf("%w: an array of %d elements but at most %d are valid", ErrMalformed, a.n, limit)
	}
	out := make([]uint64, 0, a.n)
	for v, err := range a.Values() {
		if err != nil {
			return nil, err
		}
		u, ok := v.Uint()
		if !ok {
			return nil, fmt.Errorf("%w: element %d of an array is %v, not a count", ErrType, len(out), v)
		}
		out = append(out, u)
	}
	return out, nil
}

// Raw reads the elements as the file stores them, lengths included.
func (a Array) Raw() *io.SectionReader { return io.NewSectionReader(a.r, a.off, a.Bytes()) }
