package bundle_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/testing/cases"
)

func TestOpenRejects(t *testing.T) {
	t.Parallel()
	good, _ := packed(t, bundle.PackOptions{Encoder: fast()})
	for _, n := range []int{0, 1, 47, 48, 100, len(good) / 2, len(good) - 1} {
		if _, err := bundle.Open(bytes.NewReader(good[:n]), int64(n)); !errors.Is(err, bundle.ErrNotPack) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	// The given size may differ from the real one.
	if _, err := bundle.Open(bytes.NewReader(good), int64(len(good)+1)); err == nil {
		t.Error("a size beyond the end was accepted")
	}
	dir := t.TempDir()
	if _, err := bundle.OpenFile(dir); !errors.Is(err, bundle.ErrNotPack) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := bundle.OpenFile(filepath.Join(dir, "x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	pipe := filepath.Join(dir, bundle.ManifestName) // opening it would block
	if err := mkfifo(pipe); err != nil {
		t.Fatal(err)
	}
	if _, err := bundle.OpenFile(pipe); !errors.Is(err, bundle.ErrNotPack) {
		t.Errorf("a FIFO: %v", err)
	}
	if _, err := bundle.ReadManifest(dir); !errors.Is(err, bundle.ErrManifest) {
		t.Errorf("a FIFO as manifest: %v", err)
	}
	file := filepath.Join(dir, "good")
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := bundle.OpenFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// The test flips bytes all over a pack. Open must reject the pack, or Verify and
// Extract must find the damage, or the byte has no meaning: then every file must
// still be right.
func TestFindsFlippedBytes(t *testing.T) {
	t.Parallel()
	good, m := packed(t, bundle.PackOptions{Encoder: fast(), FrameSize: 60_000})
	found := 0
	flips := cases.Of(20, 30, 60)
	for i := range flips {
		bad := bytes.Clone(good)
		at := (len(bad) - 1) * i / (flips - 1)
		bad[at] ^= 0x10
		r, err := bundle.Open(bytes.NewReader(bad), int64(len(bad)))
		if err != nil {
			found++
			continue
		}
		verr := r.Verify(context.Background())
		dir := t.TempDir()
		xerr := r.Extract(context.Background(), openRoot(t, dir), bundle.ExtractOptions{})
		if (verr == nil) != (xerr == nil) || verr != nil && (!errors.Is(verr, bundle.ErrContent) || !errors.Is(xerr, bundle.ErrContent)) {
			t.Errorf("byte %d: Verify returns %v, Extract %v", at, verr, xerr)
		}
		if xerr != nil {
			found++
			continue
		}
		for _, f := range m.Files {
			if d := bundle.CheckFile(context.Background(), openRoot(t, dir), f, nil); len(d) > 0 {
				t.Errorf("byte %d: %v passed", at, d)
			}
		}
	}
	if found < flips*9/10 {
		t.Errorf("%d of %d flipped bytes were found", found, flips)
	}
}

// FuzzReader passes damaged packs to every reader. Nothing may panic, hang, escape the
// directory or write more than the manifest allows.
func FuzzReader(f *testing.F) {
	good, _ := packed(f, bundle.PackOptions{Encoder: fast(), FrameSize: 40_000})
	f.Add(good)
	fat, _, _ := packFat(f)
	f.Add(fat)
	f.Add(good[:len(good)-1])
	f.Add([]byte{})
	for _, at := range []int{0, 5, 300, len(good) / 2, len(good) - 60, len(good) - 10} {
		bad := bytes.Clone(good)
		bad[at] ^= 0xff
		f.Add(bad)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := bundle.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if r.Manifest().Size() > 64<<20 {
			return // a correct manifest of that size is slow to unpack
		}
		dir := t.TempDir()
		if err := r.Extract(context.Background(), openRoot(t, dir), bundle.ExtractOptions{Workers: 1}); err != nil {
			return
		}
		for _, file := range r.Manifest().Files {
			if d := bundle.CheckFile(context.Background(), openRoot(t, dir), file, nil); len(d) > 0 {
				t.Errorf("extracted wrong: %v", d)
			}
		}
		if err := r.Verify(context.Background()); err != nil {
			// Only tar would unpack something else, or the parts are wrong.
			if !errors.Is(err, bundle.ErrContent) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		// The pack verifies, so unpacking for one target must succeed too.
		targets := []gfx.Target{"gfx1101"}
		if !slices.Contains(r.Manifest().Targets, targets[0]) {
			return
		}
		only := openRoot(t, t.TempDir())
		if err := r.Extract(context.Background(), only, bundle.ExtractOptions{Workers: 1, Projection: r.Manifest().ProjectionFor(targets)}); err != nil {
			t.Errorf("extracted whole, but not for one target: %v", err)
		}
		for _, file := range r.Manifest().Files {
			if d := bundle.CheckFile(context.Background(), only, file, targets); len(d) > 0 {
				t.Errorf("extracted wrong for one target: %v", d)
			}
		}
	})
}
