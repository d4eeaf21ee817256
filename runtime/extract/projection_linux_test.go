package extract

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// The manifest's digests of the projections are those of the file slimmed to one target.
func TestProjectionEqualsSlimmedFile(t *testing.T) {
	b := newFatBundle(t)
	whole := mustExtract(t, b, Options{CacheDir: cacheDir(t)})
	file, _ := whole.Manifest.File(fatName)
	for _, p := range file.Parts {
		one := mustExtract(t, b, Options{CacheDir: cacheDir(t), Targets: []gfx.Target{p.Target}})
		got, err := os.ReadFile(filepath.Join(one.Dir, fatName))
		if err != nil {
			t.Fatal(err)
		}
		slim := filepath.Join(t.TempDir(), fatName)
		all, err := os.ReadFile(filepath.Join(whole.Dir, fatName))
		if err == nil {
			err = os.WriteFile(slim, all, 0o600)
		}
		if err == nil {
			_, err = offload.Slim(slim, []gfx.Target{p.Target})
		}
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(slim)
		if err != nil {
			t.Fatal(err)
		}
		if sum := fmt.Sprintf("%x", sha256.Sum256(want)); sum != p.SHA256 || !bytes.Equal(got, want) {
			t.Errorf("%s: slimmed %s, in the manifest %s", p.Target, sum, p.SHA256)
		}
	}
}

// Without files for one target alone, the zeros in files with parts show the targets,
// also in a copy without holes.
func TestOpenInstalledFindsTargetByHoles(t *testing.T) {
	fat, parts := fatLibrary(t)
	b := packFiles(t, map[string][]byte{
		fatName: fat, "libcore.so": data(1, 100_000), loaderName: []byte("#!/bin/true\n"), programName: []byte("#!/bin/true\n# server\n"),
	}, []bundle.File{parts})
	for _, c := range []struct {
		ask []gfx.Target
		has string
	}{
		{[]gfx.Target{"gfx1100"}, "gfx1100"},
		{[]gfx.Target{"gfx1101"}, "gfx1101"},
		{nil, "gfx1100,gfx1101"},
	} {
		dir := mustExtract(t, b, Options{CacheDir: cacheDir(t), Targets: c.ask}).Dir
		dense := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(dense, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		for _, d := range []string{dir, dense} {
			if got, err := OpenInstalled(d); err != nil || gfx.Join(got.Targets, ",") != c.has {
				t.Errorf("unpacked for %v: %+v, %v; want %q", c.ask, got, err, c.has)
			}
		}
	}
}

// Bytes written into the holes for another target's code, and removed code of the
// installed target, are repaired. The directory remains one for one target.
func TestFault07_FlippedByteInHole(t *testing.T) {
	b := newFatBundle(t)
	torture.Rounds(t, func(t *testing.T) {
		o := Options{CacheDir: cacheDir(t), Targets: []gfx.Target{"gfx1101"}}
		inst := mustExtract(t, b, o)
		path := filepath.Join(inst.Dir, fatName)
		file, _ := inst.Manifest.File(fatName)
		for _, part := range file.Parts {
			for _, x := range part.Extents {
				flip(t, path, x.Offset+x.Size/2)
				if _, err := bundle.VerifyInstalled(context.Background(), inst.Dir, inst.Manifest); !errors.Is(err, bundle.ErrContent) {
					t.Errorf("a byte at %d of %s's: %v", x.Offset+x.Size/2, part.Target, err)
				}
				if second := mustExtract(t, b, o); !second.Changed {
					t.Errorf("a flipped byte at %d of %s's was not found", x.Offset+x.Size/2, part.Target)
				}
				mustBeFor(t, inst, "gfx1101")
			}
		}
		// The projection for the other target is wrong here, although it is valid.
		other, err := Extract(context.Background(), b.Reader, Options{CacheDir: cacheDir(t), Targets: []gfx.Target{"gfx1100"}})
		if err != nil {
			t.Fatal(err)
		}
		wrong, err := os.ReadFile(filepath.Join(other.Dir, fatName))
		if err != nil {
			t.Fatal(err)
		}
		change(t, path, func(f *os.File) error { _, err := f.WriteAt(wrong, 0); return err })
		mustExtract(t, b, o)
		mustBeFor(t, inst, "gfx1101")
		mustBeTidy(t, o.CacheDir)
	})
}
