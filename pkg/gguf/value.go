package gguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// ValueType is the type of a metadata value, numbered as in the format.
type ValueType uint32

// The value types of the format.
const (
	Uint8 ValueType = iota
	Int8
	Uint16
	Int16
	Uint32
	Int32
	Float32
	Bool
	String
	ArrayOf
	Uint64
	Int64
	Float64
)

// width returns the bytes of one value of a fixed-width type, 0 for others.
func (t ValueType) width() int {
	switch t {
	case Uint8, Int8, Bool:
		return 1
	case Uint16, Int16:
		return 2
	case Uint32, Int32, Float32:
		return 4
	case Uint64, Int64, Float64:
		return 8
	case String, ArrayOf:
		return 0
	}
	return 0
}

// String names the type as the format's description does.
func (t ValueType) String() string {
	names := [...]string{
		"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32",
		"bool", "string", "array", "uint64", "int64", "float64",
	}
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("type(%d)", uint32(t))
}

// Value is one metadata value. An array is a reference into the file, and so is a
// string of more than 64 KiB.
type Value struct {
	typ ValueType
	num uint64 // a scalar's bits, as stored
	str string
	arr Array // or the range of a long string
}

// isLong reports whether the value is a string that stays in the file.
func (v Value) isLong() bool { return v.typ == String && v.arr.r != nil }

// text returns a string. Its error wraps ErrMalformed for a string of more than
// 16 MiB; other errors are those of reading.
func (v Value) text() (string, error) {
	if !v.isLong() {
		return v.str, nil
	}
	n := v.arr.Bytes()
	if n > maxElement {
		return "", fmt.Errorf("%w: a string of %d bytes, more than %d", ErrMalformed, n, maxElement)
	}
	b := make([]byte, n)
	if n, err := v.arr.r.ReadAt(b, v.arr.off); n < len(b) {
		if errors.Is(err, io.EOF) {
			err = ErrTruncated
		}
		return "", fmt.Errorf("read a string: %w", err)
	}
	return string(b), nil
}

// Type of the value; ArrayOf for arrays.
func (v Value) Type() ValueType { return v.typ }

// Uint returns an integer or bool that is not negative.
func (v Value) Uint() (uint64, bool) {
	switch v.typ {
	case Uint8, Uint16, Uint32, Uint64, Bool:
		return v.num, true
	case Int8, Int16, Int32, Int64:
		i := signed(v.num, v.typ)
		return uint64(i), i >= 0
	}
	return 0, false
}

// Int returns an integer or bool that fits 64 signed bits.
func (v Value) Int() (int64, bool) {
	switch v.typ {
	case Uint8, Uint16, Uint32, Uint64, Bool:
		return int64(v.num), v.num <= math.MaxInt64
	case Int8, Int16, Int32, Int64:
		return signed(v.num, v.typ), true
	}
	return 0, false
}

// Float returns a floating-point number or an integer as one.
func (v Value) Float() (float64, bool) {
	switch v.typ {
	case Float32, Float64:
		return float(v.num, v.typ), true
	}
	if i, ok := v.Int(); ok {
		return float64(i), true
	}
	return 0, false
}

// Bool returns a bool.
func (v Value) Bool() (value, ok bool) { return v.num != 0, v.typ == Bool }

// Text returns a string. The bytes are as stored and need not be UTF-8. It returns
// false for a long string that cannot be read; File.Text returns the error.
func (v Value) Text() (string, bool) {
	s, err := v.text()
	return s, v.typ == String && err == nil
}

// Array returns an array.
func (v Value) Array() (Array, bool) { return v.arr, v.typ == ArrayOf }

// String formats the value; an array as its type and length.
func (v Value) String() string {
	switch v.typ {
	case String:
		if s, ok := v.Text(); ok {
			return s
		}
		return fmt.Sprintf("[%d bytes]", v.arr.Bytes())
	case ArrayOf:
		return fmt.Sprintf("[%d]%s", v.arr.n, v.arr.elem)
	case Bool:
		return fmt.Sprint(v.num != 0)
	case Float32, Float64:
		return fmt.Sprint(float(v.num, v.typ))
	case Uint8, Int8, Uint16, Int16, Uint32, Int32, Uint64, Int64:
		if i, ok := v.Int(); ok {
			return fmt.Sprint(i)
		}
	}
	return fmt.Sprint(v.num)
}

// truncated returns the value for an error message: a string is quoted and
// truncated.
func (v Value) truncated() string {
	switch {
	case v.isLong():
		return fmt.Sprintf("of %d bytes", v.arr.Bytes())
	case v.typ == String:
		return fmt.Sprintf("%.80q", v.str)
	}
	return v.String()
}

// signed widens stored bits of a signed type.
func signed(bits uint64, t ValueType) int64 {
	switch t {
	case Int8:
		return int64(int8(bits))
	case Int16:
		return int64(int16(bits))
	case Int32:
		return int64(int32(bits))
	}
	return int64(bits)
}

// float decodes stored bits of a floating-point type.
func float(bits uint64, t ValueType) float64 {
	if t == Float32 {
		return float64(math.Float32frombits(uint32(bits)))
	}
	return math.Float64frombits(bits)
}

// Stored returns the little-endian bytes of a number or bool in the file; nil for
// strings and arrays.
func (v Value) Stored() []byte {
	w := v.typ.width()
	if w == 0 {
		return nil
	}
	return binary.LittleEndian.AppendUint64(nil, v.num)[:w]
}
