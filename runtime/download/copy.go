package download

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
)

// Copy copies a local file into the empty or partial file out, and verifies it as
// Fetch does. After an error, out is empty.
func Copy(ctx context.Context, out *os.File, in io.Reader, size int64, digest string) (Result, error) {
	got, err := copyFile(ctx, out, in, size, digest)
	if err != nil {
		return Result{}, errors.Join(err, out.Truncate(0))
	}
	return got, nil
}

func copyFile(ctx context.Context, out *os.File, in io.Reader, size int64, digest string) (Result, error) {
	if err := out.Truncate(0); err != nil {
		return Result{}, err
	}
	if size > 0 {
		if err := checkSpace(out, size); err != nil {
			return Result{}, err
		}
	}
	h := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(h, io.NewOffsetWriter(out, 0)), struct{ io.Reader }{ctxio.Reader(ctx, in)}, make([]byte, 1<<20))
	if err != nil {
		return Result{}, err
	}
	got := Result{Size: n, SHA256: hex.EncodeToString(h.Sum(nil))}
	switch {
	case size >= 0 && n != size:
		return got, fmt.Errorf("%w: it has %d bytes, not %d", ErrSize, n, size)
	case digest != "" && got.SHA256 != digest:
		return got, fmt.Errorf("%w: it is %s, want %s", ErrDigest, got.SHA256, digest)
	}
	return got, nil
}
