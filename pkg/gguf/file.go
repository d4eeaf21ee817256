package gguf

import (
	"fmt"
	"io"
	"iter"
)

// File is the header of one model: of a single GGUF file, or of all parts of a split
// model. It is safe for concurrent use.
type File struct {
	r       io.ReaderAt
	closer  io.Closer // of r, where Open opened it
	size    int64
	dataOff int64
	parts   int
	version uint32
	align   uint64
	pairs   []pair
	index   map[string]int32
	tensors []Tensor
	byName  map[string]int32
}

// Close closes the file that Open keeps open. Arrays cannot be read afterwards.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	err := f.closer.Close()
	f.closer = nil
	return err
}

// Version of the format, 2 or 3.
func (f *File) Version() int { return int(f.version) }

// Size in bytes, of all parts together.
func (f *File) Size() int64 { return f.size }

// Parts is the number of files that the model consists of.
func (f *File) Parts() int { return f.parts }

// Alignment of tensor data in bytes.
func (f *File) Alignment() uint64 { return f.align }

// DataOffset is where the tensor data of the first file begins, in bytes.
func (f *File) DataOffset() int64 { return f.dataOff }

// Lookup returns the metadata value of key, and whether it exists.
func (f *File) Lookup(key string) (Value, bool) {
	i, ok := f.index[key]
	if !ok {
		return Value{}, false
	}
	return f.pairs[i].value, true
}

// Metadata yields keys and values in the order of the file.
func (f *File) Metadata() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		for i := range f.pairs {
			if !yield(f.pairs[i].key, f.pairs[i].value) {
				return
			}
		}
	}
}

// Tensors returns the tensor table in the order of the files. The caller must not
// modify it.
func (f *File) Tensors() []Tensor { return f.tensors }

// Tensor returns the tensor with the given name, and whether it exists.
func (f *File) Tensor(name string) (Tensor, bool) {
	i, ok := f.byName[name]
	if !ok {
		return Tensor{}, false
	}
	return f.tensors[i], true
}

// Uint returns a non-negative integer, or an error that wraps ErrNotFound or
// ErrType.
func (f *File) Uint(key string) (uint64, error) {
	return typed(f, key, "a non-negative integer", Value.Uint)
}

// Float returns a number.
func (f *File) Float(key string) (float64, error) {
	return typed(f, key, "a number", Value.Float)
}

// Bool returns a bool.
func (f *File) Bool(key string) (bool, error) {
	return typed(f, key, "a bool", Value.Bool)
}

// Text returns a string. A string of more than 64 KiB is read from the file.
func (f *File) Text(key string) (string, error) {
	v, ok := f.Lookup(key)
	if !ok || v.typ != String {
		return typed(f, key, "a string", Value.Text)
	}
	s, err := v.text()
	if err != nil {
		return "", fmt.Errorf("%.80q: %w", key, err)
	}
	return s, nil
}

// Array returns an array, still in the file.
func (f *File) Array(key string) (Array, error) {
	return typed(f, key, "an array", Value.Array)
}

func typed[T any](f *File, key, want string, get func(Value) (T, bool)) (T, error) {
	var zero T
	v, ok := f.Lookup(key)
	if !ok {
		return zero, fmt.Errorf("%w: %.80q", ErrNotFound, key)
	}
	t, ok := get(v)
	if !ok {
		return zero, fmt.Errorf("%w: %.80q is %s %s, not %s", ErrType, key, v.typ, v.truncated(), want)
	}
	return t, nil
}
