package gguf

import (
	"errors"
	"fmt"
)

// Conditions that errors of this package wrap.
var (
	// ErrNotGGUF: the file does not begin with the GGUF magic.
	ErrNotGGUF = errors.New("not a GGUF file")
	// ErrVersion: a GGUF version other than 2 and 3.
	ErrVersion = errors.New("unsupported GGUF version")
	// ErrBigEndian: a file written for big-endian machines.
	ErrBigEndian = errors.New("big-endian GGUF file")
	// ErrTruncated: the file ends before what it announces.
	ErrTruncated = errors.New("GGUF file is cut short")
	// ErrMalformed: a field contradicts the format.
	ErrMalformed = errors.New("malformed GGUF file")
	// ErrSplit: the parts of a split model do not belong together.
	ErrSplit = errors.New("split model is incomplete or inconsistent")
	// ErrNotFound: no value under the key.
	ErrNotFound = errors.New("no such metadata key")
	// ErrType: the value under the key has another type.
	ErrType = errors.New("metadata value has another type")
)

// FormatError says where in the file the reader stopped and why. It wraps one
// of ErrNotGGUF, ErrVersion, ErrBigEndian, ErrTruncated and ErrMalformed.
type FormatError struct {
	Offset int64  // bytes from the start of the file
	Part   string // "header", "metadata", "tensors" or "data"
	Reason string // what is wrong, with the numbers
	Err    error  // the condition
}

// Error implements error.
func (e *FormatError) Error() string {
	return fmt.Sprintf("%v: %s at byte %d: %s", e.Err, e.Part, e.Offset, e.Reason)
}

// Unwrap returns the condition.
func (e *FormatError) Unwrap() error { return e.Err }
