package gguf

import (
	"errors"
	"fmt"
)

// Sentinel errors, for errors.Is.
var (
	// ErrNotGGUF means that the file does not begin with the GGUF magic.
	ErrNotGGUF = errors.New("not a GGUF file")
	// ErrVersion means a GGUF version other than 2 and 3.
	ErrVersion = errors.New("unsupported GGUF version")
	// ErrBigEndian means that the file was written for big-endian machines.
	ErrBigEndian = errors.New("big-endian GGUF file")
	// ErrTruncated means that the file ends before the end of its contents.
	ErrTruncated = errors.New("GGUF file is truncated")
	// ErrMalformed means that a field violates the format.
	ErrMalformed = errors.New("malformed GGUF file")
	// ErrSplit means that the parts of a split model do not belong together.
	ErrSplit = errors.New("split model is incomplete or inconsistent")
	// ErrNotFound means that the metadata has no such key.
	ErrNotFound = errors.New("no such metadata key")
	// ErrType means that the value of the key has another type.
	ErrType = errors.New("metadata value has another type")
)

// FormatError is an error at a position of the file. It wraps one of ErrNotGGUF,
// ErrVersion, ErrBigEndian, ErrTruncated and ErrMalformed.
type FormatError struct {
	Offset int64  // bytes from the start of the file
	Part   string // "header", "metadata", "tensors" or "data"
	Reason string // what is wrong, with the numbers
	Err    error  // the condition
	// Content is what the file is instead of GGUF, where Err is ErrNotGGUF and the
	// content was recognised.
	Content Content
}

// Error implements error.
func (e *FormatError) Error() string {
	if e.Content != "" {
		return fmt.Sprintf("%v but %s", e.Err, e.Content)
	}
	return fmt.Sprintf("%v: %s at byte %d: %s", e.Err, e.Part, e.Offset, e.Reason)
}

// Unwrap returns the sentinel error.
func (e *FormatError) Unwrap() error { return e.Err }
