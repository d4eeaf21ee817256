package bundle_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

func TestPackRoundTrip(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]bundle.PackOptions{
		"default":      {},
		"small frames": {Encoder: fast(), FrameSize: 1},
		"one worker":   {Encoder: fast(), Workers: 1, FrameSize: 100_000},
		"zstd command": {Encoder: bundle.CommandEncoder(bundle.ZstdCommand(19, 23)), FrameSize: 200_000},
		"fast":         {Encoder: fast()},
	} {
		t.Run(name, func(t *testing.T) {
			b, m := packed(t, o)
			r := open(t, b)
			if r.Digest() != m.Digest() || r.Manifest().Digest() != m.Digest() {
				t.Errorf("digest of the pack %s, of the manifest %s", r.Digest(), m.Digest())
			}
			dir := extractTo(t, r, bundle.ExtractOptions{Sync: true})
			if err := bundle.Verify(context.Background(), dir, m); err != nil {
				t.Error(err)
			}
			if err := r.Verify(context.Background()); err != nil {
				t.Error(err)
			}
			for name, want := range fixtureFiles() {
				if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes (%v), want %d", name, len(got), err, len(want))
				}
			}
		})
	}
}

// The copies differ in everything that must not matter: directory, age, order of
// creation, workers, modes under a strict umask.
func TestPackIsReproducible(t *testing.T) {
	t.Parallel()
	first, _ := packed(t, bundle.PackOptions{Encoder: fast(), Workers: 1, FrameSize: 90_000})
	for _, workers := range []int{1, 2, 7, runtime.NumCPU()} {
		second, _ := packed(t, bundle.PackOptions{Encoder: fast(), Workers: workers, FrameSize: 90_000})
		if !bytes.Equal(first, second) {
			t.Errorf("%d workers write other bytes than one", workers)
		}
	}
	dir, _ := fixture(t)
	long := time.Unix(300_000_000, 5)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return errors.Join(os.Chmod(path, info.Mode()&0o700), os.Chtimes(path, long, long))
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := bundle.Build(dir, head())
	if err != nil {
		t.Fatal(err)
	}
	var second bytes.Buffer
	if _, err := bundle.Pack(t.Context(), &second, dir, m, bundle.PackOptions{Encoder: fast(), FrameSize: 90_000}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second.Bytes()) {
		t.Error("other modes and times change the bytes")
	}
}

// The archive inside a pack must not change: packs are cached by the digest of their
// inputs and published by their own. The test ignores the compression, which depends
// on the version of the compressor.
func TestPackedArchiveIsStable(t *testing.T) {
	t.Parallel()
	b, _ := packed(t, bundle.PackOptions{Encoder: fast(), FrameSize: 90_000})
	z, err := zstd.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	h := sha256.New()
	if _, err := io.Copy(h, z); err != nil {
		t.Fatal(err)
	}
	const want = "487acfcb9d021a668eafaf3641008327b172dcfa57b10caab6070b146f0a339f"
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("the archive has sha256 %s, want %s", got, want)
	}
}

// A bundle can be unpacked without go-rocm, with the tar and zstd programs.
func TestPlainTarUnpacks(t *testing.T) {
	t.Parallel()
	b, m := packed(t, bundle.PackOptions{Encoder: fast(), FrameSize: 100_000})
	dir := t.TempDir()
	file := filepath.Join(dir, "b.tar.zst")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o750); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "tar", "--zstd", "-p", "-xf", file, "-C", out)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar --zstd -xf: %v\n%s", err, msg)
	} else if len(msg) > 0 {
		t.Errorf("tar complains: %s", msg)
	}
	if err := bundle.Verify(context.Background(), out, m); err != nil {
		t.Error(err)
	}
	list, err := exec.CommandContext(t.Context(), "tar", "--zstd", "-tf", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	if first, _, _ := strings.Cut(string(list), "\n"); first != bundle.ManifestName {
		t.Errorf("the first member is %q", first)
	}
	if used := diskUse(t, filepath.Join(out, "libsparse.so")); used > 1<<20 {
		t.Errorf("tar wrote %d bytes of a sparse file's 309 096", used)
	}
}

func TestPackRejects(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		enc    bundle.Encoder
		want   error
	}{
		"changed file": {change: func(t *testing.T, dir string) {
			appendTo(t, filepath.Join(dir, "libfoo.so"), "x")
		}, want: bundle.ErrContent},
		"other bytes": {change: func(t *testing.T, dir string) {
			writeFiles(t, dir, map[string][]byte{"libfoo.so": text(99, 70_001)})
		}, want: bundle.ErrContent},
		"missing file": {change: func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "libfoo.so")); err != nil {
				t.Fatal(err)
			}
		}, want: os.ErrNotExist},
		"encoder fails": {enc: func(context.Context, io.Writer, io.Reader, int64) error { return boom }, want: boom},
		"encoder lies": {enc: func(ctx context.Context, w io.Writer, _ io.Reader, n int64) error {
			return bundle.GoEncoder(zstd.SpeedFastest, 1<<20)(ctx, w, io.LimitReader(bytes.NewReader(make([]byte, n)), n), n)
		}, want: bundle.ErrContent},
		"no such program": {enc: bundle.CommandEncoder(func(int64) []string { return []string{"/nonexistent/zstd"} }), want: os.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			dir, m := fixture(t)
			if c.change != nil {
				c.change(t, dir)
			}
			_, err := bundle.Pack(context.Background(), io.Discard, dir, m, bundle.PackOptions{Encoder: c.enc})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func appendTo(t *testing.T, path, s string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(s); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
