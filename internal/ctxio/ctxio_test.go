package ctxio_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

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
