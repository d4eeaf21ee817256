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

func TestReader(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := ctxio.Reader(ctx, strings.NewReader("abcd"))
	two := make([]byte, 2)
	if n, err := r.Read(two); n != 2 || err != nil || string(two) != "ab" {
		t.Fatalf("got %d, %v, %q", n, err, two)
	}
	cancel()
	if rest, err := io.ReadAll(r); len(rest) != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}

func TestWriter(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var b bytes.Buffer
	w := ctxio.Writer(ctx, &b)
	if n, err := io.WriteString(w, "ab"); n != 2 || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
	cancel()
	if n, err := io.WriteString(w, "cd"); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %d, %v", n, err)
	}
	if b.String() != "ab" {
		t.Errorf("written: %q", b.String())
	}
}

// A copy must not go round the context by the other side's ReadFrom or WriteTo.
func TestCopy(t *testing.T) {
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
