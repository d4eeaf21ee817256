// Package ctxio lets copying and hashing of long files end when a context does.
// The standard library's io knows no context; a signal that a program takes as
// the end of one would otherwise have to wait for the last byte.
package ctxio

import (
	"context"
	"io"
)

// Reader gives r's bytes until ctx ends, and its error from then on. A Read that
// r is busy with is not interrupted.
func Reader(ctx context.Context, r io.Reader) io.Reader { return reader{ctx, r} }

// Writer hands bytes to w until ctx ends, and gives its error from then on.
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
