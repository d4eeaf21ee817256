package extract

import (
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// TestNameTakenFirst: somebody without our lock makes the bundle's folder while
// ours is staged. Their folder stays, and what was done to it is told.
func TestNameTakenFirst(t *testing.T) {
	b := newBundle(t, false)
	for name, c := range map[string]struct {
		plant func(t *testing.T, goal string)
		fresh bool
		want  string
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
			if inst.Changed != c.fresh || gfx.Join(inst.Targets, ",") != c.want {
				t.Errorf("fresh %v with %v, want %v with %s", inst.Changed, inst.Targets, c.fresh, c.want)
			}
			if st, err := os.Stat(goal); err != nil || !os.SameFile(st, planted) {
				t.Errorf("the folder that was there first was replaced (%v)", err)
			}
			mustBeWarm(t, b, o)
			mustBeTidy(t, o.CacheDir)
		})
	}
}
