// Package ctxio makes copying and hashing of large files cancellable. The io package
// of the standard library does not use contexts; without this package a cancelled
// program would read the file to its end.
package ctxio

import (
	"context"
	"io"
)

// Reader returns a reader that reads from r until ctx is cancelled, and then returns
// the error of ctx. It does not interrupt a Read in progress.
func Reader(ctx context.Context, r io.Reader) io.Reader { return reader{ctx, r} }

// Writer returns a writer that writes to w until ctx is cancelled, and then returns
// the error of ctx.
func Writer(ctx context.Context, w io.Writer) io.Writer { return writer{ctx, w} }

type reader struct {
	ctx context.Context
	r   io.Reader
}

func (c reader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

type writer struct {
	ctx context.Context
	w   io.Writer
}

func (c writer) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}
