package gguf

import (
	"fmt"
	"io"
	"iter"
)

// Array is a metadata array that stays in the file; its methods read it anew
// each time through a small buffer.
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

// Strings walks an array of strings in order. An error ends the walk and comes
// with an empty string; an array of another type gives ErrType at once, a string
// of more than 16 MiB ErrMalformed.
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

// Values walks an array of numbers or bools in order.
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

// Uints reads an array of non-negative integers (or bools, as 0 and 1) whole.
// An array longer than limit is an error rather than an allocation.
func (a Array) Uints(limit int) ([]uint64, error) {
	if a.n > uint64(max(limit, 0)) {
		return nil, fmt.Errorf("%w: an array of %d elements where at most %d make sense", ErrMalformed, a.n, limit)
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
