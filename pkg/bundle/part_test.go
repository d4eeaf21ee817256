package bundle_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

// EF_AMDGPU_MACH numbers.
const (
	mach1100 = 0x41
	mach1101 = 0x46
)

// fatLibrary returns a library with code for both targets in two units, 1.2 MB for
// each target.
func fatLibrary() []byte {
	unit := func(kernel string, fill int) []byte {
		return elfgen.Bundle(
			elfgen.Entry{ID: "host-x86_64-unknown-linux--"},
			elfgen.Entry{ID: "hipv4-amdgcn-amd-amdhsa--gfx1100", Code: elfgen.CodeObject(mach1100, []string{kernel}, fill)},
			elfgen.Entry{ID: "hipv4-amdgcn-amd-amdhsa--gfx1101", Code: elfgen.CodeObject(mach1101, []string{kernel}, fill+5000)},
		)
	}
	return elfgen.Spec{SONAME: "libfat.so", Sections: []elfgen.Section{
		elfgen.FatBinary(unit("a", 1_000_000), unit("b", 200_000)),
		{Name: ".rodata", Flags: 2, Data: text(11, 70_000)},
	}}.Bytes()
}

// fatParts reads the parts of an ELF file.
func fatParts(tb testing.TB, path string) []bundle.Part {
	tb.Helper()
	shares, err := offload.ReadTargetExtents(path)
	if err != nil {
		tb.Fatal(err)
	}
	var out []bundle.Part
	for _, s := range shares {
		p := bundle.Part{Target: s.Target}
		for _, x := range s.Extents {
			p.Extents = append(p.Extents, bundle.Extent(x))
		}
		out = append(out, p)
	}
	return out
}

// oddParts returns edge cases: unaligned, adjacent, across the boundary of a decoder
// buffer, across a hole, at both ends of the file, and, in the second file, none for
// gfx1101.
func oddParts() (sparse, odd []bundle.Part) {
	sparse = []bundle.Part{
		{Target: "gfx1100", Extents: bundle.Extents{{0, 7}, {4000, 1000}, {1<<20 + 100, 200_000}}},
		{Target: "gfx1101", Extents: bundle.Extents{{7, 1}, {1<<20 + 200_100, 4096}, {8 << 20, 20_000}}},
	}
	odd = []bundle.Part{{Target: "gfx1100", Extents: bundle.Extents{{300, 149_700}}}, {Target: "gfx1101"}}
	return sparse, odd
}

// fatFixture writes a bundle with four files that have parts; two are equal.
func fatFixture(tb testing.TB) (string, *bundle.Manifest) {
	tb.Helper()
	dir := tb.TempDir()
	files := fixtureFiles()
	files["libfat.so"], files["libfat.so.1"] = fatLibrary(), fatLibrary()
	files["libodd.so"] = text(12, 150_000)
	writeFiles(tb, dir, files)
	fat := fatParts(tb, filepath.Join(dir, "libfat.so"))
	sparse, odd := oddParts()
	h := head()
	h.Files = []bundle.File{{Path: "libfat.so", Parts: fat}, {Path: "libfat.so.1", Parts: fat}, {Path: "libsparse.so", Parts: sparse}, {Path: "libodd.so", Parts: odd}}
	for name := range fixtureFiles() { // targets that Build would derive from the names
		if t := map[string]gfx.Target{
			"rocblas/library/Kernels_gfx1100.hsaco": "gfx1100", "rocblas/library/Kernels_gfx1101.hsaco": "gfx1101", "rocblas/library/fallback_gfx1100.dat": "gfx1100",
			"rocblas/library/fallback_gfx1101.dat": "gfx1101", longName: "gfx1101",
		}[name]; t != "" {
			h.Files = append(h.Files, bundle.File{Path: name, Target: t})
		}
	}
	m, err := bundle.Build(dir, h)
	if err != nil {
		tb.Fatal(err)
	}
	return dir, m
}

// packFat packs that bundle.
func packFat(tb testing.TB) ([]byte, *bundle.Manifest, string) {
	tb.Helper()
	dir, m := fatFixture(tb)
	var b bytes.Buffer
	if _, err := bundle.Pack(context.Background(), &b, dir, m, bundle.PackOptions{Encoder: fast(), FrameSize: 100_000}); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes(), m, dir
}

// project returns the projection of the file for one target, computed directly from
// the definition of a part.
func project(f bundle.File, b []byte, only gfx.Target) []byte {
	b = bytes.Clone(b)
	for _, p := range f.Parts {
		for _, x := range p.Extents {
			if p.Target != only {
				clear(b[x.Offset : x.Offset+x.Size])
			}
		}
	}
	return b
}

// Extract writes the projection for one target. It uses as little disk space as
// possible, and the manifest verifies it.
func TestExtractProjection(t *testing.T) {
	t.Parallel()
	b, m, src := packFat(t)
	r := open(t, b)
	if err := r.Verify(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, targets := range [][]gfx.Target{nil, {}, {"gfx1100"}, {"gfx1101"}, {"gfx1100", "gfx1101"}} {
		only, want := m.ProjectionFor(targets), bundle.ForTargets(targets)
		var done, total int64
		dir := extractTo(t, r, bundle.ExtractOptions{Select: want, Projection: only, Sync: true, Progress: func(d, n int64) { done, total = d, n }})
		if done != total {
			t.Errorf("%v: progress ended at %d of %d", targets, done, total)
		}
		for _, f := range m.Files {
			if !want(f) {
				continue
			}
			whole, err := os.ReadFile(filepath.Join(src, f.Path))
			if err != nil {
				t.Fatal(err)
			}
			if only != "" {
				whole = project(f, whole, only)
			}
			if got, err := os.ReadFile(filepath.Join(dir, f.Path)); err != nil || !bytes.Equal(got, whole) {
				t.Errorf("%v: %s is wrong (%v)", targets, f.Path, err)
			}
		}
		if err := bundle.VerifyTargets(context.Background(), dir, m, targets); err != nil {
			t.Errorf("%v: %v", targets, err)
		}
		need, inodes := r.DiskUsage(want, only)
		used, files := dirUsage(t, dir, m)
		// DiskUsage may count blocks that are partly another target's, and sparse
		// maps, without need. It counts an extent across a hole of the file as
		// saved twice.
		if used > need+16<<10 || need > used+64<<10 || files != inodes {
			t.Errorf("%v: DiskUsage is %d bytes and %d inodes, actual usage %d and %d", targets, need, inodes, used, files)
		}
	}
}

// dirUsage returns the disk space that the bundle's files occupy.
func dirUsage(t *testing.T, dir string, m *bundle.Manifest) (bytes, inodes int64) {
	t.Helper()
	var seen []os.FileInfo
	for _, f := range m.Files {
		st, err := os.Stat(filepath.Join(dir, f.Path))
		if errors.Is(err, os.ErrNotExist) || slices.ContainsFunc(seen, func(o os.FileInfo) bool { return os.SameFile(o, st) }) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, st)
		bytes += diskUse(t, filepath.Join(dir, f.Path))
		inodes++
	}
	return bytes, inodes
}

// A projection equals the file slimmed to that target, so the HIP runtime finds no
// entry for other targets instead of zeros.
func TestProjectionEqualsSlimmedFile(t *testing.T) {
	t.Parallel()
	b, _, src := packFat(t)
	for _, target := range []gfx.Target{"gfx1100", "gfx1101"} {
		dir := extractTo(t, open(t, b), bundle.ExtractOptions{Projection: target})
		slim := filepath.Join(t.TempDir(), "slim.so")
		if err := os.WriteFile(slim, readAll(t, filepath.Join(src, "libfat.so")), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := offload.Slim(slim, []gfx.Target{target}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(readAll(t, slim), readAll(t, filepath.Join(dir, "libfat.so"))) {
			t.Errorf("%s: the projection is not the slim file", target)
		}
		if got, err := offload.CheckTargets(filepath.Join(dir, "libfat.so"), []gfx.Target{target}); err != nil || got[0].Kernels != 2 {
			t.Errorf("%s: %+v, %v", target, got, err)
		}
	}
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVerifyAcceptsWholeFilesAndProjections(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b, m, src := packFat(t)
	one := func(targets ...gfx.Target) string {
		return extractTo(t, open(t, b), bundle.ExtractOptions{Select: bundle.ForTargets(targets), Projection: m.ProjectionFor(targets)})
	}
	with := func(dir string, change func(in func(string) string)) string {
		change(func(name string) string { return filepath.Join(dir, name) })
		return dir
	}
	whole := func(dir string, names ...string) string {
		for _, n := range names {
			if err := os.WriteFile(filepath.Join(dir, n), readAll(t, filepath.Join(src, n)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	const own1101 = "rocblas/library/Kernels_gfx1101.hsaco"
	both, g1100, g1101 := []gfx.Target{"gfx1100", "gfx1101"}, []gfx.Target{"gfx1100"}, []gfx.Target{"gfx1101"}
	for _, c := range []struct {
		name  string
		dir   string
		found []gfx.Target   // by VerifyInstalled
		right [][]gfx.Target // accepted by VerifyTargets
	}{
		{"whole", one(both...), both, [][]gfx.Target{nil, {}, g1100, g1101, both}},
		{"gfx1100", one(g1100...), g1100, [][]gfx.Target{{}, g1100}},
		{"gfx1101", one(g1101...), g1101, [][]gfx.Target{{}, g1101}},
		{"none", extractTo(t, open(t, b), bundle.ExtractOptions{Select: bundle.ForTargets([]gfx.Target{}), Projection: "gfx1100"}), []gfx.Target{}, [][]gfx.Target{{}}},
		{"gfx1100, one file whole", whole(one(g1100...), "libsparse.so"), g1100, [][]gfx.Target{{}, g1100}},
		{"gfx1100, a file of gfx1101 beside", with(one(g1100...), func(in func(string) string) {
			if err := os.WriteFile(in(own1101), readAll(t, filepath.Join(src, own1101)), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(in(own1101), 0o644); err != nil {
				t.Fatal(err)
			}
		}), g1100, [][]gfx.Target{{}, g1100}},
		{"all files, code of gfx1101", extractTo(t, open(t, b), bundle.ExtractOptions{Projection: "gfx1101"}), g1101, [][]gfx.Target{{}, g1101}},
	} {
		found, err := bundle.VerifyInstalled(ctx, c.dir, m)
		if err != nil || !slices.Equal(found, c.found) {
			t.Errorf("%s: found %v, %v; want %v", c.name, found, err, c.found)
		}
		for _, targets := range [][]gfx.Target{nil, {}, g1100, g1101, both} {
			err := bundle.VerifyTargets(ctx, c.dir, m, targets)
			right := slices.ContainsFunc(c.right, func(r []gfx.Target) bool {
				return slices.Equal(r, targets) && (r == nil) == (targets == nil)
			})
			if (err == nil) != right {
				t.Errorf("%s: for %v: %v, want that it is right: %v", c.name, targets, err, right)
			}
		}
	}
	// A directory with the code of one target in one file, and of another target in
	// another file, is valid for neither.
	mixed := one(g1100...)
	if err := os.WriteFile(filepath.Join(mixed, "libfat.so"), readAll(t, filepath.Join(one(g1101...), "libfat.so")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := bundle.VerifyTargets(ctx, mixed, m, g1100); !errors.Is(err, bundle.ErrContent) {
		t.Errorf("mixed: %v", err)
	}
	if found, _ := bundle.VerifyInstalled(ctx, mixed, m); len(found) > 0 {
		t.Errorf("mixed: found %v", found)
	}
}

// Verify finds any byte that is written into the holes of a projection.
func TestVerifyFindsBytesInHoles(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b, m, _ := packFat(t)
	targets := []gfx.Target{"gfx1100"}
	dir := extractTo(t, open(t, b), bundle.ExtractOptions{Select: bundle.ForTargets(targets), Projection: "gfx1100"})
	for _, path := range []string{"libfat.so", "libsparse.so"} {
		f, _ := m.File(path)
		for _, p := range f.Parts {
			if p.Target == "gfx1100" {
				continue
			}
			for _, x := range p.Extents {
				places := []int64{x.Offset, x.Offset + x.Size/2, x.Offset + x.Size - 1}
				if testing.Short() {
					places = places[2:] // `mage test` tries all of them
				}
				for _, at := range places {
					writeByte(t, filepath.Join(dir, path), at, 1)
					for name, err := range map[string]error{
						"VerifyTargets":   bundle.VerifyTargets(ctx, dir, m, targets),
						"Verify":          bundle.Verify(ctx, dir, m),
						"VerifyInstalled": func() error { _, err := bundle.VerifyInstalled(ctx, dir, m); return err }(),
					} {
						var ve *bundle.VerifyError
						if !errors.As(err, &ve) || !slices.ContainsFunc(ve.Differences, func(d bundle.Difference) bool { return d.Path == path && d.Kind == bundle.WrongSum }) {
							t.Errorf("%s: %s with a byte at %d: %v", name, path, at, err)
						}
					}
					writeByte(t, filepath.Join(dir, path), at, 0)
				}
			}
		}
	}
	if err := bundle.VerifyTargets(ctx, dir, m, targets); err != nil {
		t.Error(err)
	}
}

func writeByte(t *testing.T, path string, at int64, v byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{v}, at)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// Pack and Build reject a manifest whose projections are not those of its files.
func TestRejectsWrongParts(t *testing.T) {
	t.Parallel()
	dir, m := fatFixture(t)
	i := slices.IndexFunc(m.Files, func(f bundle.File) bool { return f.Path == "libodd.so" })
	m.Files[i].Parts[0].Extents[0].Size--
	if _, err := bundle.Pack(context.Background(), io.Discard, dir, m, bundle.PackOptions{Encoder: fast()}); !errors.Is(err, bundle.ErrContent) {
		t.Errorf("packed with another extent: %v", err)
	}
	for name, parts := range map[string][]bundle.Part{
		"outside":  {{Target: "gfx1100", Extents: bundle.Extents{{149_999, 2}}}, {Target: "gfx1101"}},
		"negative": {{Target: "gfx1100", Extents: bundle.Extents{{5, -3}}}, {Target: "gfx1101"}},
		"nothing":  {{Target: "gfx1100"}, {Target: "gfx1101"}},
		"one":      {{Target: "gfx1100", Extents: bundle.Extents{{5, 3}}}},
	} {
		h := head()
		h.Files = []bundle.File{{Path: "libodd.so", Parts: parts}}
		if _, err := bundle.Build(dir, h); !errors.Is(err, bundle.ErrManifest) {
			t.Errorf("built with parts that are %s: %v", name, err)
		}
	}
}

func FuzzExtents(f *testing.F) {
	for _, s := range []string{"", "0+1", "1+2 3+4", "1+2  3+4", "1+2 ", "-1+2", "+1", "1+", "999999999999999999+1", "1000000000000000000+1", "00+1", "1+2,3+4"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var x bundle.Extents
		if err := x.UnmarshalText(b); err != nil {
			return
		}
		text, err := x.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var second bundle.Extents
		if err := second.UnmarshalText(text); err != nil || !slices.Equal(x, second) {
			t.Errorf("%q is read as %v, written as %q, read as %v, %v", b, x, text, second, err)
		}
		for _, e := range x {
			if e.Offset < 0 || e.Size < 0 {
				t.Errorf("%q is parsed as %+v", b, e)
			}
		}
	})
}
