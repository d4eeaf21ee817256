package deb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/blakesmith/ar"
	"github.com/klauspost/compress/zstd"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
)

// A Recompressor reads a zstd stream of size bytes from src and writes one zstd frame
// with the same content to dst. Its result must depend on the content alone.
type Recompressor func(ctx context.Context, dst io.Writer, src io.Reader, size int64) error

// MaxWindow is the largest window that dpkg accepts, in bytes: the default limit of
// libzstd's decoder (ZSTD_WINDOWLOG_LIMIT_DEFAULT, 27), which dpkg does not raise.
const MaxWindow = 128 << 20

// dataMember is the member of a package with the files to install.
const dataMember = "data.tar.zst"

// ErrData reports a data archive that dpkg would reject.
var ErrData = errors.New("deb data archive")

// recompress copies the package at from to the file to and replaces the data archive by
// a smaller one.
func recompress(ctx context.Context, from, to, work string, run Recompressor) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Chmod(0o644), out.Sync(), out.Close()) }()
	if err := ar.NewWriter(out).WriteGlobalHeader(); err != nil {
		return err
	}
	for r := ar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if strings.TrimSuffix(h.Name, "/") != dataMember {
			if err := copyMember(ctx, out, h, r); err != nil {
				return err
			}
			continue
		}
		if err := recompressMember(ctx, out, h, r, work, run); err != nil {
			return fmt.Errorf("compress %s: %w", dataMember, err)
		}
	}
}

// copyMember writes a member. It uses the library for the header alone, whose Write is
// for a whole member at once.
func copyMember(ctx context.Context, w io.Writer, h *ar.Header, body io.Reader) error {
	if err := ar.NewWriter(w).WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(w, ctxio.Reader(ctx, body))
	if err == nil && h.Size%2 == 1 {
		_, err = w.Write([]byte{'\n'}) // members begin at even offsets
	}
	return err
}

// recompressMember writes the member with header h, compressed by run. A file in work
// holds it until its size is known.
func recompressMember(ctx context.Context, w io.Writer, h *ar.Header, body io.Reader, work string, run Recompressor) (err error) {
	f, err := os.CreateTemp(work, "data-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	before := sha256.New()
	pr, pw := io.Pipe()
	decoded := make(chan error, 1)
	go func() {
		err := decode(before, pr)
		pr.CloseWithError(errors.Join(errors.New("the decoder stopped reading"), err))
		decoded <- err
	}()
	err = run(ctx, f, io.TeeReader(ctxio.Reader(ctx, body), pw), h.Size)
	pw.CloseWithError(err)
	if err := errors.Join(err, <-decoded); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if err := checkFrame(f, size); err != nil {
		return err
	}
	after := sha256.New()
	if err := decode(after, ctxio.Reader(ctx, io.NewSectionReader(f, 0, size))); err != nil {
		return err
	}
	if !bytes.Equal(before.Sum(nil), after.Sum(nil)) {
		return fmt.Errorf("%w: the compressed archive has another content", ErrData)
	}
	compressed := *h
	compressed.Size = size
	return copyMember(ctx, w, &compressed, io.NewSectionReader(f, 0, size))
}

// decode writes the content of a zstd stream to w.
func decode(w io.Writer, r io.Reader) error {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	_, err = z.WriteTo(w)
	return err
}

// checkFrame rejects a stream that dpkg does not read to its end: dpkg stops at the end
// of the first frame, and its window is limited.
func checkFrame(r io.ReaderAt, size int64) error {
	head := make([]byte, min(size, zstd.HeaderMaxSize))
	if _, err := r.ReadAt(head, 0); err != nil {
		return err
	}
	var h zstd.Header
	if err := h.Decode(head); err != nil {
		return fmt.Errorf("%w: %w", ErrData, err)
	}
	window := h.WindowSize
	if h.SingleSegment {
		window = h.FrameContentSize
	}
	if h.Skippable || window > MaxWindow {
		return fmt.Errorf("%w: a window of %d bytes, dpkg accepts %d", ErrData, window, MaxWindow)
	}
	at := int64(h.HeaderSize)
	for last := false; !last; {
		var b [3]byte // RFC 8878, 3.1.1.2: last block, type, size
		if _, err := r.ReadAt(b[:], at); err != nil {
			return fmt.Errorf("%w: the frame is incomplete: %w", ErrData, err)
		}
		block := int64(b[0]) | int64(b[1])<<8 | int64(b[2])<<16
		last = block&1 != 0
		at += 3
		if block>>1&3 == 1 {
			at++ // a repeated byte
		} else {
			at += block >> 3
		}
	}
	if h.HasCheckSum {
		at += 4
	}
	if at > size {
		return fmt.Errorf("%w: the frame is incomplete: %d bytes are missing", ErrData, at-size)
	}
	if at < size {
		return fmt.Errorf("%w: %d bytes after the first frame, where dpkg stops", ErrData, size-at)
	}
	return nil
}

// CopyData writes the data archive of the package at path to w: a tar archive,
// compressed with zstd.
func CopyData(ctx context.Context, path string, w io.Writer) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for r := ar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			return fmt.Errorf("%w: %s: find %s: %w", ErrData, path, dataMember, err)
		}
		if strings.TrimSuffix(h.Name, "/") == dataMember {
			_, err := io.Copy(w, ctxio.Reader(ctx, r))
			return err
		}
	}
}
