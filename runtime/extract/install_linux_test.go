package extract

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// A process without the lock creates the bundle's directory while a stage is being
// filled. Its directory stays and is verified, and Changed reports any repair.
func TestInstallKeepsExistingDirectory(t *testing.T) {
	b := newBundle(t, false)
	for name, c := range map[string]struct {
		plant   func(t *testing.T, goal string)
		changed bool
		want    string
	}{
		"empty": {mkdirs, true, "gfx1100"},
		"whole, for more": {func(t *testing.T, goal string) {
			t.Helper()
			other := mustExtract(t, b, Options{CacheDir: cacheDir(t)})
			if err := os.Rename(other.Dir, goal); err != nil {
				t.Fatal(err)
			}
		}, false, "gfx1100,gfx1101"},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{CacheDir: cacheDir(t), Targets: []gfx.Target{"gfx1100"}}
			goal := filepath.Join(o.CacheDir, bundlesName, b.Digest())
			var planted os.FileInfo
			o.trace = func(s string) {
				if s != "synced" || planted != nil { // a repair stages too
					return
				}
				c.plant(t, goal)
				var err error
				if planted, err = os.Stat(goal); err != nil {
					t.Fatal(err)
				}
			}
			inst := mustExtract(t, b, o)
			if inst.Changed != c.changed || gfx.Join(inst.Targets, ",") != c.want {
				t.Errorf("changed %v with %v, want %v with %s", inst.Changed, inst.Targets, c.changed, c.want)
			}
			if st, err := os.Stat(goal); err != nil || !os.SameFile(st, planted) {
				t.Errorf("the existing directory was replaced (%v)", err)
			}
			mustBeFast(t, b, o)
			mustBeTidy(t, o.CacheDir)
		})
	}
}

// An installation or repair syncs every directory before it writes the stamp.
func TestDirectoriesAreSynced(t *testing.T) {
	b := newBundle(t, false)
	dirs := []string{".", "licenses", "licenses/rocblas", "rocblas", "rocblas/library"}
	o := Options{CacheDir: cacheDir(t)}
	check := func(what, before string) {
		t.Helper()
		var synced []string
		watched := o
		watched.synced = func(p string) { synced = append(synced, p) }
		watched.trace = func(s string) {
			if s == before && !slices.Equal(synced, dirs) {
				t.Errorf("%s: synced %q at %q, want %q", what, synced, s, dirs)
			}
		}
		if inst := mustExtract(t, b, watched); !inst.Changed {
			t.Errorf("%s: nothing was written", what)
		}
	}
	check("install", "renamed")
	dir := filepath.Join(o.CacheDir, bundlesName, b.Digest())
	remove(t, filepath.Join(dir, "rocblas/library/fallback.dat"))
	dirs = append([]string{".", "rocblas", "rocblas/library"}, dirs...) // the stage, then the bundle
	check("repair", "stamped")
}
