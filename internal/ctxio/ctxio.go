// Package ctxio makes copying and hashing of large files cancellable. The io package
// of the standard library does not use contexts; without this package a cancelled
// program would read the file to its end. It also limits what is kept of a program's
// output.
package ctxio

import (
	"bytes"
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

// LimitedBuffer keeps the first Limit bytes that are written to it and drops the rest.
// It does not embed bytes.Buffer, whose ReadFrom would read everything: os/exec copies
// with io.Copy, which uses a writer's ReadFrom if there is one.
type LimitedBuffer struct {
	Limit int

	kept bytes.Buffer
}

// Write implements io.Writer.
func (b *LimitedBuffer) Write(p []byte) (int, error) {
	if free := b.Limit - b.kept.Len(); free > 0 {
		_, _ = b.kept.Write(p[:min(free, len(p))]) // never fails
	}
	return len(p), nil
}

// Bytes returns the kept bytes.
func (b *LimitedBuffer) Bytes() []byte { return b.kept.Bytes() }
