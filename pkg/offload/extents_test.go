package offload_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

// TestTargetExtentsAreWhatSlimClears: a file without the shares of the other targets
// is, byte for byte, the file slimmed to one.
func TestTargetExtentsAreWhatSlimClears(t *testing.T) {
	path := elfgen.WriteFile(t, "libfat.so.1", fatLibrary([]string{"k1"}, []string{"k2", "k3"}, []string{"k4"}))
	shares, err := offload.ReadTargetExtents(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(shares) != 3 || shares[0].Target != "gfx1030" || shares[1].Target != gfx.GFX1100 || shares[2].Target != gfx.GFX1101 {
		t.Fatalf("shares %+v", shares)
	}
	before := readFile(t, path)
	for _, only := range shares {
		if len(only.Extents) != 2*3 { // code and size field in each unit
			t.Errorf("%s: %d extents", only.Target, len(only.Extents))
		}
		want := bytes.Clone(before)
		for _, s := range shares {
			end := int64(0)
			for _, x := range s.Extents {
				if x.Offset < end || x.Size <= 0 {
					t.Errorf("%s: extent %+v behind %d", s.Target, x, end)
				}
				end = x.Offset + x.Size
				if s.Target != only.Target {
					clear(want[x.Offset:end])
				}
			}
		}
		slim := filepath.Join(t.TempDir(), "slim.so")
		if err := os.WriteFile(slim, before, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := offload.Slim(slim, []gfx.Target{only.Target}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, readFile(t, slim)) {
			t.Errorf("without the others' shares the file is not what Slim makes for %s", only.Target)
		}
	}
}

func TestReadTargetExtentsErrors(t *testing.T) {
	code := elfgen.CodeObject(mach1100, []string{"k"}, 200)
	shared := elfgen.Bundle(elfgen.Entry{ID: id1030, Code: code}, elfgen.Entry{ID: id1100, Code: code})
	first := 32 // make both entries the same bytes
	second := first + 24 + len(id1030)
	copy(shared[second:second+16], shared[first:first+16])
	overlap := elfgen.Library("overlap.so")
	overlap.Sections = []elfgen.Section{elfgen.FatBinary(shared)}
	packed := elfgen.Library("packed.so")
	packed.Sections = []elfgen.Section{elfgen.FatBinary(elfgen.Compress(elfgen.Bundle(elfgen.Entry{ID: id1100, Code: code}), 3, "zstd"))}
	var fe *elfdep.FormatError
	for name, c := range map[string]struct {
		file any
		is   error
	}{
		"shared code": {overlap, nil},
		"compressed":  {packed, offload.ErrCompressedBundle},
		"no GPU code": {elfgen.Library("x"), offload.ErrNoFatBinary},
		"no ELF":      {[]byte("hello"), nil},
	} {
		shares, err := offload.ReadTargetExtents(elfgen.WriteFile(t, "f", c.file))
		if c.is == nil && !errors.As(err, &fe) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %+v, %v", name, shares, err)
		}
	}
}
