package deb_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"forge.lthn.ai/core/go-rocm/packaging/deb"
)

// encodeAgain returns a Recompressor with encoder options. It passes the content through
// change.
func encodeAgain(change func([]byte) []byte, options ...zstd.EOption) deb.Recompressor {
	return func(_ context.Context, dst io.Writer, src io.Reader, size int64) error {
		packed, err := io.ReadAll(src)
		if err != nil {
			return err
		}
		if int64(len(packed)) != size {
			return errors.New("the size of the input is wrong")
		}
		d, err := zstd.NewReader(bytes.NewReader(packed))
		if err != nil {
			return err
		}
		defer d.Close()
		content, err := io.ReadAll(d)
		if err != nil {
			return err
		}
		e, err := zstd.NewWriter(dst, append([]zstd.EOption{zstd.WithEncoderCRC(true)}, options...)...)
		if err != nil {
			return err
		}
		_, err = e.Write(change(content))
		return errors.Join(err, e.Close())
	}
}

func same(b []byte) []byte { return b }

// The recompressed package differs from the other one only in its data archive, whose
// content is the same.
func TestRecompressKeepsTheContent(t *testing.T) {
	t.Parallel()
	dir := writeBundle(t)
	plain, small := options(t), options(t)
	small.Recompress = encodeAgain(same, zstd.WithWindowSize(deb.MaxWindow))
	want, path := open(t, buildBundle(t, plain, dir)), buildBundle(t, small, dir)
	got := open(t, path)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(archive{})); diff != "" {
		t.Errorf("package (-plain +recompressed):\n%s", diff)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	var data bytes.Buffer
	if err := deb.CopyData(t.Context(), path, &data); err != nil {
		t.Fatal(err)
	}
	var h zstd.Header
	if err := h.Decode(data.Bytes()); err != nil || !h.HasCheckSum {
		t.Errorf("the data archive is not that of the recompressor: %+v, %v", h, err)
	}
	again := options(t)
	again.Recompress = small.Recompress
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(buildBundle(t, again, dir))
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("two packages of the same bundle differ: %v", err)
	}
}

// dpkg stops at the end of the first frame and limits the window.
func TestRecompressRejectsWhatDpkgDoes(t *testing.T) {
	t.Parallel()
	dir := writeBundle(t)
	failure := errors.New("no zstd")
	for name, tc := range map[string]struct {
		run  deb.Recompressor
		is   error
		want string
	}{
		"two frames": {func(ctx context.Context, dst io.Writer, src io.Reader, size int64) error {
			err := encodeAgain(same)(ctx, dst, src, size)
			e, newErr := zstd.NewWriter(dst)
			if newErr != nil {
				return newErr
			}
			_, writeErr := e.Write([]byte("more"))
			return errors.Join(err, writeErr, e.Close())
		}, deb.ErrData, "after the first frame"},
		"large window":  {encodeAgain(same, zstd.WithWindowSize(2*deb.MaxWindow)), deb.ErrData, "268435456 bytes, dpkg accepts 134217728"},
		"other content": {encodeAgain(bytes.ToUpper), deb.ErrData, "another content"},
		"truncated": {func(ctx context.Context, dst io.Writer, src io.Reader, size int64) error {
			var b bytes.Buffer
			err := encodeAgain(same)(ctx, &b, src, size)
			_, writeErr := dst.Write(b.Bytes()[:b.Len()/2])
			return errors.Join(err, writeErr)
		}, deb.ErrData, "incomplete"},
		"nothing": {func(_ context.Context, _ io.Writer, src io.Reader, _ int64) error {
			_, err := io.Copy(io.Discard, src)
			return err
		}, deb.ErrData, "EOF"},
		"failure": {func(context.Context, io.Writer, io.Reader, int64) error { return failure }, failure, "data.tar.zst"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			o.Recompress = tc.run
			if _, err := deb.BuildBundle(t.Context(), o, dir); !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %v with %q", err, tc.is, tc.want)
			}
			if left, err := filepath.Glob(filepath.Join(o.OutDir, "*")); err != nil || len(left) > 0 {
				t.Errorf("remains: %v, %v", left, err)
			}
			if left, err := filepath.Glob(filepath.Join(o.OutDir, ".deb-*")); err != nil || len(left) > 0 {
				t.Errorf("remains: %v, %v", left, err)
			}
		})
	}
}

func TestCopyDataNeedsAPackage(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "a.deb")
	write(t, name, "!<arch>\n")
	if err := deb.CopyData(t.Context(), name, io.Discard); !errors.Is(err, deb.ErrData) {
		t.Errorf("a package without data: %v", err)
	}
}
