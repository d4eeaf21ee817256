package offload_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

func TestSlim(t *testing.T) {
	spec := fatLibrary([]string{"k1"}, []string{"k2", "k3"}, []string{"k4"})
	spec.Sections = append(spec.Sections, elfgen.Section{Name: ".rodata", Flags: 2, Data: bytes.Repeat([]byte("after "), 3000)})
	path := elfgen.WriteFile(t, "libfat.so.1", spec)
	if err := os.Chmod(path, 0o754); err != nil {
		t.Fatal(err)
	}
	before := readFile(t, path)
	keep := []gfx.Target{gfx.GFX1100, gfx.GFX1101}
	stats, err := offload.Slim(path, keep)
	if err != nil {
		t.Fatal(err)
	}
	removed := int64(0)
	for i, ks := range [][]string{{"k1"}, {"k2", "k3"}, {"k4"}} {
		removed += int64(len(elfgen.CodeObject(mach1030, ks, 5000*(i+1))))
	}
	if d := cmp.Diff(offload.SlimStats{Bundles: 3, Kept: 6, Removed: 3, Bytes: removed, Dropped: []gfx.Target{"gfx1030"}}, stats); d != "" {
		t.Error(d)
	}
	after := readFile(t, path)
	if len(after) != len(before) {
		t.Fatalf("size %d became %d", len(before), len(after))
	}
	checkSlimmed(t, before, after, "gfx1030")
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o754 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	checkOnlyFile(t, path)
	got, err := offload.CheckTargets(path, keep)
	if err != nil || len(got) != 2 || got[0].Kernels != 4 || got[1].Kernels != 4 {
		t.Errorf("%+v, %v", got, err)
	}

	stats, err = offload.Slim(path, keep)
	if err != nil || stats.Removed != 0 || stats.Kept != 6 {
		t.Errorf("again: %+v, %v", stats, err)
	}
	if !bytes.Equal(after, readFile(t, path)) {
		t.Error("slimming a slim file changed it")
	}
}

// checkSlimmed compares byte by byte: only the code of the dropped target and
// its size fields may differ, and must be zero.
func checkSlimmed(t *testing.T, before, after []byte, dropped gfx.Target) {
	t.Helper()
	fb, err := offload.ReadFatBinary(bytes.NewReader(before))
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(before)
	for _, b := range fb.Bundles {
		table := b.Offset + 32
		for _, e := range b.Entries {
			if e.ID.ID.Target == dropped {
				clear(want[b.Offset+e.Offset : b.Offset+e.Offset+e.Size])
				clear(want[table+8 : table+16])
			}
			table += 24 + int64(len(e.ID.String()))
		}
	}
	for i := range want {
		if want[i] != after[i] {
			t.Fatalf("byte %#x is %#x, want %#x", i, after[i], want[i])
		}
	}
}

func TestSlimIsDeterministic(t *testing.T) {
	spec := fatLibrary([]string{"a"}, []string{"b"})
	one, two := elfgen.WriteFile(t, "one", spec), elfgen.WriteFile(t, "two", spec)
	if _, err := offload.Slim(one, []gfx.Target{gfx.GFX1101, gfx.GFX1100}); err != nil {
		t.Fatal(err)
	}
	for _, keep := range [][]gfx.Target{{gfx.GFX1100, gfx.GFX1101, "gfx1030"}, {gfx.GFX1100, gfx.GFX1101}} { // in two steps
		if _, err := offload.Slim(two, keep); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(readFile(t, one), readFile(t, two)) {
		t.Error("the same choice gave different files")
	}
}

func TestSlimRefuses(t *testing.T) {
	code := elfgen.CodeObject(mach1100, []string{"k"}, 200)
	some := elfgen.Library("some.so") // the second unit lacks gfx1101
	some.Sections = []elfgen.Section{elfgen.FatBinary(
		elfgen.Bundle(elfgen.Entry{ID: id1100, Code: code}, elfgen.Entry{ID: id1101, Code: elfgen.CodeObject(mach1101, []string{"k"}, 1)}),
		elfgen.Bundle(elfgen.Entry{ID: id1100, Code: code}),
	)}
	shared := elfgen.Bundle(elfgen.Entry{ID: id1030, Code: code}, elfgen.Entry{ID: id1100, Code: code})
	first := 32 // make both entries the same bytes
	second := first + 24 + len(id1030)
	copy(shared[second:second+16], shared[first:first+16])
	overlap := elfgen.Library("overlap.so")
	overlap.Sections = []elfgen.Section{elfgen.FatBinary(shared)}
	var te *offload.TargetError
	var fe *elfdep.FormatError
	for _, c := range []struct {
		name string
		file any
		keep []gfx.Target
		is   error
		as   any
	}{
		{"nothing to keep", some, nil, nil, nil},
		{"lacking target", some, []gfx.Target{"gfx1100", "gfx1101"}, nil, &te},
		{"shared code", overlap, []gfx.Target{"gfx1100"}, nil, &fe},
		{"no GPU code", elfgen.Library("x"), []gfx.Target{"gfx1100"}, offload.ErrNoFatBinary, nil},
		{"no ELF", []byte("hello"), []gfx.Target{"gfx1100"}, nil, &fe},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := elfgen.WriteFile(t, "f", c.file)
			before := readFile(t, path)
			stats, err := offload.Slim(path, c.keep)
			if err == nil || (c.is != nil && !errors.Is(err, c.is)) || (c.as != nil && !errors.As(err, c.as)) {
				t.Errorf("%+v, %v", stats, err)
			}
			if !bytes.Equal(before, readFile(t, path)) {
				t.Error("the rejected file changed")
			}
			checkOnlyFile(t, path)
		})
	}
	if _, err := offload.Slim(filepath.Join(t.TempDir(), "none"), []gfx.Target{"gfx1100"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
