package bundle

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
)

const (
	// minWindow is the smallest window that a decoder is created with. Frames of
	// tiny files need less; zstd's own minimum is 1 KiB.
	minWindow = 128 << 10
	// chunk is the size of the buffers that carry file data.
	chunk = 256 << 10
)

// sink receives one file's data in ascending order. Bytes between two calls are
// zero.
type sink interface {
	// data may modify b, but not keep it.
	data(off int64, b []byte) error
	// done is called after the last byte. It checks the whole file.
	done(f File) error
	// abort is called instead of done after an error.
	abort()
}

// frameDecoder decodes one frame at a time with memory for one window.
type frameDecoder struct {
	zr  *zstd.Decoder
	in  *bufio.Reader
	buf []byte
}

func newFrameDecoder(window int64) (*frameDecoder, error) {
	zr, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(uint64(max(window, minWindow))))
	if err != nil {
		return nil, fmt.Errorf("zstd decoder: %w", err)
	}
	return &frameDecoder{zr: zr, in: bufio.NewReaderSize(nil, chunk), buf: make([]byte, chunk)}, nil
}

func (d *frameDecoder) close() { d.zr.Close() }

// boundedReader reads at most left bytes. Unlike an io.LimitedReader, it reports
// an error if more follow.
type boundedReader struct {
	ctx  context.Context
	r    io.Reader
	left int64
	pos  int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.left == 0 {
		var one [1]byte
		for {
			n, err := b.r.Read(one[:])
			if n > 0 {
				return 0, fmt.Errorf("%w: a frame is longer than its index says", ErrContent)
			}
			if err != nil {
				return 0, err
			}
		}
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	b.pos += int64(n)
	return n, err
}

// decode decodes the frame from src and passes the data of each member to the
// sink that open returns for it; a nil sink skips the member. decode stops after
// the last member with a sink. If that is the frame's last member, the frame's
// end and its checksum are verified too. With a layout, the bytes between the
// members must match it, and open must return a sink for every member.
func (d *frameDecoder) decode(ctx context.Context, src io.Reader, f *frame, l *layout, open func(path string, stored int64) (File, sink)) error {
	d.in.Reset(src)
	if err := d.zr.Reset(d.in); err != nil {
		return fmt.Errorf("%w: %w", ErrContent, err)
	}
	br := &boundedReader{ctx: ctx, r: d.zr, left: f.Raw}
	whole := true
	for i, m := range f.Members {
		file, s := open(m.Path, m.Stored)
		if whole = s != nil; !whole {
			continue
		}
		err := d.skipHeaders(br, l, i, m.Data)
		if err == nil {
			err = d.decodeMember(br, m, file, s)
		}
		if err == nil {
			err = s.done(file)
		} else {
			s.abort()
		}
		if err != nil {
			return decodeError(ctx, m.Path, err)
		}
	}
	if !whole {
		return nil
	}
	if l != nil {
		if err := d.skipHeaders(br, l, len(f.Members), f.Raw); err != nil {
			return decodeError(ctx, "the frame's end", err)
		}
	}
	if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{br}, d.buf); err != nil {
		return decodeError(ctx, "the frame's end", err)
	}
	if br.left > 0 {
		return fmt.Errorf("%w: a frame is %d bytes shorter than its index says", ErrContent, br.left)
	}
	return nil
}

// decodeError wraps errors of the decoder in ErrContent, since they mean damaged
// bytes. Errors of the sinks and of the context are returned as they are.
func decodeError(ctx context.Context, what string, err error) error {
	if cerr := ctx.Err(); cerr != nil {
		return context.Cause(ctx)
	}
	var se *writeError
	if errors.As(err, &se) || errors.Is(err, ErrContent) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrContent, what, err)
}

// writeError is an error of writing a file, as opposed to reading the pack.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// skipHeaders reads the headers before member i, up to the offset to, and
// compares them with the layout, if any.
func (d *frameDecoder) skipHeaders(br *boundedReader, l *layout, i int, to int64) error {
	if l != nil {
		return l.check(br, i, to-br.pos)
	}
	return d.discard(br, to-br.pos)
}

func (d *frameDecoder) decodeMember(br *boundedReader, m member, f File, s sink) error {
	extents := []extent{{0, f.Size}}
	if m.Sparse {
		var err error
		if extents, _, err = readSparseMap(br, f.Size, m.Stored); err != nil {
			return err
		}
	} else if m.Stored != f.Size {
		return fmt.Errorf("%w: %d bytes stored for a file of %d", ErrContent, m.Stored, f.Size)
	}
	for _, e := range extents {
		for off := e.off; off < e.end(); {
			n := min(int64(len(d.buf)), e.end()-off)
			if _, err := io.ReadFull(br, d.buf[:n]); err != nil {
				return shortRead(err)
			}
			if err := s.data(off, d.buf[:n]); err != nil {
				return err
			}
			off += n
		}
	}
	return nil
}

func (d *frameDecoder) discard(r io.Reader, n int64) error {
	for n > 0 {
		k := min(n, int64(len(d.buf)))
		if _, err := io.ReadFull(r, d.buf[:k]); err != nil {
			return shortRead(err)
		}
		n -= k
	}
	return nil
}

func shortRead(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: a frame ends early", ErrContent)
	}
	return err
}

// zeros is read-only. It replaces holes when files are hashed.
var zeros [chunk]byte //nolint:gochecknoglobals // a constant that Go cannot spell

// hashSink hashes a file, holes included, and compares the digest with the
// manifest.
type hashSink struct {
	h   hash.Hash
	pos int64
	// projections, if not nil, hashes the projections too.
	projections *projector
}

func newHashSink() *hashSink { return &hashSink{h: sha256.New()} }

func (s *hashSink) data(off int64, b []byte) error {
	s.skipTo(off)
	s.write(b)
	return nil
}

func (s *hashSink) skipTo(off int64) {
	for s.pos < off {
		s.write(zeros[:min(off-s.pos, int64(len(zeros)))])
	}
}

func (s *hashSink) write(b []byte) {
	_, _ = s.h.Write(b) // hash.Hash never fails
	if s.projections != nil {
		_, _ = s.projections.Write(b)
	}
	s.pos += int64(len(b))
}

func (s *hashSink) done(f File) error {
	s.skipTo(f.Size)
	if sum := hex.EncodeToString(s.h.Sum(nil)); sum != f.SHA256 {
		return fmt.Errorf("%w: sha256 is %s, the manifest says %s", ErrContent, sum, f.SHA256)
	}
	if s.projections != nil {
		return s.projections.check(&f)
	}
	return nil
}

func (s *hashSink) abort() {}

// byteSink collects a small file, and compares it with want if that is set.
type byteSink struct {
	got  []byte
	want []byte
}

func (s *byteSink) data(off int64, b []byte) error {
	if int64(len(s.got)) != off || len(s.got)+len(b) > MaxManifestSize {
		return fmt.Errorf("%w: the manifest is too large or has holes", ErrContent)
	}
	s.got = append(s.got, b...)
	return nil
}

func (s *byteSink) done(File) error {
	if s.want != nil && !bytes.Equal(s.got, s.want) {
		return fmt.Errorf("%w: it differs from the packed file", ErrContent)
	}
	return nil
}

func (s *byteSink) abort() {}
