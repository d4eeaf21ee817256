package bundle_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

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

func TestExtractSelectsTargets(t *testing.T) {
	t.Parallel()
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

func TestExtractKeepsHolesAndLinks(t *testing.T) {
	t.Parallel()
	b, _ := packed(t, bundle.PackOptions{Encoder: fast()})
	dir := extractTo(t, open(t, b), bundle.ExtractOptions{})
	for name, most := range map[string]int64{"libsparse.so": 400 << 10, "libhole.so": 8 << 10, "libtail.so": 16 << 10} {
		if used := diskUse(t, filepath.Join(dir, name)); used > most {
			t.Errorf("%s occupies %d bytes, want at most %d", name, used, most)
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
	t.Parallel()
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
	// A symbolic link in place of a directory, which leaves the root.
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "rocblas")); err != nil {
		t.Fatal(err)
	}
	if err := open(t, b).Extract(context.Background(), openRoot(t, dir), bundle.ExtractOptions{}); err == nil {
		t.Error("a symbolic link out of the root was followed")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside the root: %v, %v", left, err)
	}
	_ = m
}

func TestExtractReturnsCauseOfCancellation(t *testing.T) {
	t.Parallel()
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

func TestExtractReportsProgress(t *testing.T) {
	t.Parallel()
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
