package extract

import (
	"path/filepath"
	"slices"
	"testing"
)

// TestWaiterFindsTheWorkDone: between the first look and the lock another call
// installs the bundle. What it left is taken by its seal.
func TestWaiterFindsTheWorkDone(t *testing.T) {
	b := newBundle(t, false)
	o := Options{CacheDir: cacheDir(t)}
	var steps []string
	late := o
	late.trace = func(s string) {
		if steps = append(steps, s); s == "stale" {
			mustExtract(t, b, o)
		}
	}
	if inst := mustExtract(t, b, late); inst.Changed {
		t.Error("the bundle was written twice")
	}
	if want := []string{"stale", "locked"}; !slices.Equal(steps, want) {
		t.Errorf("steps %q, want %q", steps, want)
	}
}

// TestSealIsYounger: a seal is written when the tick of the clock is over in which
// the bundle changed last, as the times on the disk show.
func TestSealIsYounger(t *testing.T) {
	b := newBundle(t, false)
	inst := mustExtract(t, b, Options{CacheDir: cacheDir(t)})
	s, err := openStore(place{filepath.Dir(filepath.Dir(inst.Dir)), "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	for range 20 { // a tick may end by chance
		chmod(t, filepath.Join(inst.Dir, "libcore.so"), 0o644) // changes its change time alone
		if err := s.writeSeal(t.Context(), inst.Manifest, b.Digest(), inst.Targets); err != nil {
			t.Fatal(err)
		}
		file, err := s.statNoFollow(filepath.Join(b.Digest(), "libcore.so"))
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := s.statNoFollow(sealName(b.Digest()))
		if err != nil {
			t.Fatal(err)
		}
		if sealed.Mtim.Nano() <= file.Ctim.Nano() {
			t.Fatalf("sealed at %d, in the tick in which a file changed at %d", sealed.Mtim.Nano(), file.Ctim.Nano())
		}
	}
}
