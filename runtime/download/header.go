package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	firstHeaderStep = 2 << 20   // bytes of the first request for a header
	maxHeader       = 512 << 20 // bytes
)

// checkBeginning calls Check with the first have bytes of a file. decided is false if
// Check needs more of them.
func checkBeginning(src Source, file io.ReaderAt, have, size int64) (decided bool, err error) {
	if src.Check == nil {
		return true, nil
	}
	r := &beginning{r: file, have: have, size: size}
	err = src.Check(r, size)
	if r.short {
		return false, nil
	}
	return err == nil, err
}

// checkError is an error of Check during a request, which is not repeated.
type checkError struct{ err error }

// Error implements error.
func (e *checkError) Error() string { return e.err.Error() }

// Unwrap returns the error of Check.
func (e *checkError) Unwrap() error { return e.err }

// beginning reads the part of a file that came, and notes attempts to read more.
type beginning struct {
	r          io.ReaderAt
	have, size int64
	short      bool
}

var errNotHere = errors.New("this part has not come yet")

// ReadAt implements io.ReaderAt.
func (b *beginning) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.have && b.have < b.size {
		b.short = true
		return 0, errNotHere
	}
	return b.r.ReadAt(p, off)
}

// FetchHeader fetches the beginning of src, until Check has decided, into an empty
// file, which gets the size of the whole: the rest is a hole. It returns that size.
func (c *Client) FetchHeader(ctx context.Context, src Source, file *os.File) (size int64, err error) {
	id := identity{Size: src.Size, expected: src.Size >= 0}
	noRanges := false
	for have, step := int64(0), int64(firstHeaderStep); ; step *= 2 {
		if have > maxHeader {
			return 0, fmt.Errorf("%w: %s has a header of more than %d bytes", ErrAnswer, src.address(), maxHeader)
		}
		err := c.retry(ctx, func() (progress bool, err error) {
			at := have
			if noRanges {
				at = 0
			}
			res, stop, whole, err := c.openRange(ctx, src.URL, at, step, &id, src.SHA256 != "" || noRanges)
			if err != nil {
				return false, err
			}
			defer stop()
			defer func() { _ = res.Body.Close() }()
			if noRanges = whole; whole {
				if _, err := io.CopyN(io.Discard, res.Body, have); err != nil {
					return false, err
				}
			}
			n, err := io.CopyN(io.NewOffsetWriter(file, have), res.Body, min(step, id.Size-have))
			have += n
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return n > 0, err
		})
		if err != nil {
			return 0, err
		}
		if decided, err := checkBeginning(src, file, have, id.Size); err != nil || decided {
			return id.Size, errors.Join(err, file.Truncate(id.Size))
		}
		if have == id.Size {
			return 0, fmt.Errorf("%w: %s ends within its header", ErrAnswer, src.address())
		}
	}
}
