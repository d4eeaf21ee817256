package ctxio_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
)

func TestReaderStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := ctxio.Reader(ctx, strings.NewReader("abcd"))
	two := make([]byte, 2)
	if n, err := r.Read(two); n != 2 || err != nil || string(two) != "ab" {
		t.Fatalf("got %d, %v, %q", n, err, two)
	}
	cancel()
	if rest, err := io.ReadAll(r); len(rest) != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("after the cancellation: %q, %v", rest, err)
	}
}

func TestWriterStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var b bytes.Buffer
	w := ctxio.Writer(ctx, &b)
	if n, err := io.WriteString(w, "ab"); n != 2 || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
	cancel()
	if n, err := io.WriteString(w, "cd"); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("after the cancellation: %d, %v", n, err)
	}
	if b.String() != "ab" {
		t.Errorf("written: %q", b.String())
	}
}

// io.Copy must not bypass the context by ReadFrom or WriteTo of the other side.
func TestCopyStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var b bytes.Buffer
	if _, err := io.Copy(&b, ctxio.Reader(ctx, strings.NewReader("ab"))); !errors.Is(err, context.Canceled) {
		t.Errorf("from a reader: %v", err)
	}
	if _, err := io.Copy(ctxio.Writer(ctx, &b), strings.NewReader("ab")); !errors.Is(err, context.Canceled) {
		t.Errorf("to a writer: %v", err)
	}
	if b.Len() > 0 {
		t.Errorf("copied: %q", b.String())
	}
}

func TestLimitedBuffer(t *testing.T) {
	const limit = 1 << 20
	for _, size := range []int{0, 1, limit - 1, limit, limit + 1, 5 << 20} {
		b := ctxio.LimitedBuffer{Limit: limit}
		text := bytes.Repeat([]byte("help"), size/4+1)[:size]
		n, err := io.Copy(&b, iotest.DataErrReader(bytes.NewReader(text)))
		if err != nil || n != int64(size) {
			t.Errorf("%d of %d bytes, %v", n, size, err)
		}
		if got := b.Bytes(); !bytes.Equal(got, text[:min(size, limit)]) {
			t.Errorf("of %d bytes %d are kept, want the first %d", size, len(got), limit)
		}
	}
}
