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
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

func extractTo(t *testing.T, r *bundle.Reader, o bundle.ExtractOptions) string {
	t.Helper()
	dir := t.TempDir()
	root := openRoot(t, dir)
	if err := r.Extract(context.Background(), root, o); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteManifest(root, o.Sync); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPackAndExtract(t *testing.T) {
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

// TestPackDeterministic packs copies of the bundle that differ in everything
// that must not matter: folder, age, order of creation, workers, modes as a strict
// umask leaves them.
func TestPackDeterministic(t *testing.T) {
	first, _ := packed(t, bundle.PackOptions{Encoder: fast(), Workers: 1, FrameSize: 90_000})
	for _, workers := range []int{1, 2, 7, runtime.NumCPU()} {
		again, _ := packed(t, bundle.PackOptions{Encoder: fast(), Workers: workers, FrameSize: 90_000})
		if !bytes.Equal(first, again) {
			t.Errorf("%d workers give other bytes than one", workers)
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
	var again bytes.Buffer
	if _, err := bundle.Pack(t.Context(), &again, dir, m, bundle.PackOptions{Encoder: fast(), FrameSize: 90_000}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, again.Bytes()) {
		t.Error("other modes and times give other bytes")
	}
}

// TestPackBytes holds the archive inside of a pack to what it always was: packs
// are kept by the digest of what they are made from, and published by theirs. It
// leaves out what the compressor's version decides.
func TestPackBytes(t *testing.T) {
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

// TestPlainTar unpacks with the tar and zstd programs: a bundle must not need
// go-rocm to be opened.
func TestPlainTar(t *testing.T) {
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

func TestExtractTargets(t *testing.T) {
	b, m := packed(t, bundle.PackOptions{Encoder: fast(), FrameSize: 50_000})
	r := open(t, b)
	all, _ := r.DiskUsage(nil, "")
	for _, targets := range [][]gfx.Target{{}, {"gfx1100"}, {"gfx1101"}, {"gfx1100", "gfx1101"}} {
		want := bundle.ForTargets(targets)
		dir := extractTo(t, r, bundle.ExtractOptions{Select: want})
		if err := bundle.VerifyTargets(context.Background(), dir, m, targets); err != nil {
			t.Errorf("%v: %v", targets, err)
		}
		for _, f := range m.Files {
			if _, err := os.Lstat(filepath.Join(dir, f.Path)); (err == nil) != want(f) {
				t.Errorf("%v: %s: wanted %v, lstat says %v", targets, f.Path, want(f), err)
			}
		}
		if need, _ := r.DiskUsage(want, m.ProjectionFor(targets)); len(targets) < 2 && need >= all {
			t.Errorf("%v: needs %d bytes, all targets need %d", targets, need, all)
		}
	}
}

func TestExtractSparse(t *testing.T) {
	b, _ := packed(t, bundle.PackOptions{Encoder: fast()})
	dir := extractTo(t, open(t, b), bundle.ExtractOptions{})
	for name, most := range map[string]int64{"libsparse.so": 400 << 10, "libhole.so": 8 << 10, "libtail.so": 16 << 10} {
		if used := diskUse(t, filepath.Join(dir, name)); used > most {
			t.Errorf("%s takes %d bytes on the disk, want at most %d", name, used, most)
		}
	}
	a, err := os.Stat(filepath.Join(dir, "libfoo.so"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := os.Stat(filepath.Join(dir, "libfoo.so.1"))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(a, c) {
		t.Error("equal files are stored twice on the disk")
	}
}

func TestExtractOverwritesNothing(t *testing.T) {
	b, m := packed(t, bundle.PackOptions{Encoder: fast()})
	for _, plant := range []func(path string) error{
		func(p string) error { return os.WriteFile(p, []byte("mine"), 0o600) },
		func(p string) error { return os.Symlink("/etc/passwd", p) },
		func(p string) error { return os.Mkdir(p, 0o750) },
	} {
		dir := t.TempDir()
		if err := plant(filepath.Join(dir, "libfoo.so")); err != nil {
			t.Fatal(err)
		}
		err := open(t, b).Extract(context.Background(), openRoot(t, dir), bundle.ExtractOptions{})
		if !errors.Is(err, os.ErrExist) || errors.Is(err, bundle.ErrContent) {
			t.Errorf("got %v, want an error about the existing file", err)
		}
	}
	// A link for a folder that leads out of the root.
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "rocblas")); err != nil {
		t.Fatal(err)
	}
	if err := open(t, b).Extract(context.Background(), openRoot(t, dir), bundle.ExtractOptions{}); err == nil {
		t.Error("a folder that is a link out of the root was followed")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside the root: %v, %v", left, err)
	}
	_ = m
}

func TestExtractCancel(t *testing.T) {
	b, _ := packed(t, bundle.PackOptions{Encoder: fast(), FrameSize: 1})
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	err := open(t, b).Extract(ctx, openRoot(t, t.TempDir()), bundle.ExtractOptions{
		Workers: 2, Progress: func(int64, int64) { cancel(why) },
	})
	if !errors.Is(err, why) {
		t.Errorf("got %v, want the cause of the cancellation", err)
	}
}

func TestExtractProgress(t *testing.T) {
	b, _ := packed(t, bundle.PackOptions{Encoder: fast(), FrameSize: 1})
	var last, total int64
	extractTo(t, open(t, b), bundle.ExtractOptions{Progress: func(d, n int64) {
		if d < last {
			t.Errorf("progress went back from %d to %d", last, d)
		}
		last, total = d, n
	}})
	if last == 0 || last != total {
		t.Errorf("progress ended at %d of %d", last, total)
	}
}

func TestPackRefuses(t *testing.T) {
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
