package offload_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

func TestReadFatBinary(t *testing.T) {
	file := fatLibrary([]string{"k1"}, []string{"k2", "k3"}).Bytes()
	fb, err := offload.ReadFatBinary(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if len(fb.Bundles) != 2 {
		t.Fatalf("%d bundles, want 2", len(fb.Bundles))
	}
	for i := range fb.Bundles {
		b := &fb.Bundles[i]
		if b.Offset%4096 != 0 || !bytes.HasPrefix(file[b.Offset:], []byte("__CLANG_OFFLOAD_BUNDLE__")) {
			t.Errorf("bundle %d: offset %#x", i, b.Offset)
		}
		var ids []string
		for _, e := range b.Entries {
			ids = append(ids, e.ID.String())
			if e.Size > 0 && !bytes.HasPrefix(file[b.Offset+e.Offset:], []byte("\x7fELF")) {
				t.Errorf("bundle %d, %s: offset %#x", i, e.ID, e.Offset)
			}
		}
		if d := cmp.Diff([]string{hostID, id1030, id1100, id1101}, ids); d != "" {
			t.Error(d)
		}
	}
	got, err := fb.CodeObjects()
	if err != nil {
		t.Fatal(err)
	}
	size := func(mach uint32, fills ...int) (n int64) {
		for i, f := range fills {
			n += int64(len(elfgen.CodeObject(mach, [][]string{{"k1"}, {"k2", "k3"}}[i], f)))
		}
		return n
	}
	want := []offload.CodeObjects{
		{Target: "gfx1030", Objects: 2, Bytes: size(mach1030, 5000, 10000), Kernels: 3},
		{Target: "gfx1100", Objects: 2, Bytes: size(mach1100, 5000, 10000), Kernels: 3},
		{Target: "gfx1101", Objects: 2, Bytes: size(mach1101, 5001, 10001), Kernels: 3},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestCompressedBundles(t *testing.T) {
	plain := elfgen.Bundle(
		elfgen.Entry{ID: hostID},
		elfgen.Entry{ID: id1100, Code: elfgen.CodeObject(mach1100, []string{"a", "b"}, 9000)},
		elfgen.Entry{ID: idPrefix + "gfx90a:sramecc+:xnack-", Code: elfgen.CodeObject(0xe3f, []string{"a"}, 100)},
	)
	s := elfgen.Library("libc.so")
	s.Sections = []elfgen.Section{elfgen.FatBinary(
		elfgen.Compress(plain, 2, "zstd"), plain, elfgen.Compress(plain, 3, "zstd"), elfgen.Compress(plain, 2, "zlib"), elfgen.Compress(plain, 3, "zlib"),
	)}
	path := elfgen.WriteFile(t, "libc.so", s)
	got, err := offload.ReadCodeObjects(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Target != "gfx90a" || got[0].Kernels != 5 || got[1].Objects != 5 || got[1].Kernels != 10 {
		t.Errorf("%+v", got)
	}
	fb, err := offload.ReadFatBinary(bytes.NewReader(s.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []*offload.Compression{
		{Version: 2, Method: "zstd", Unpacked: int64(len(plain)), Hash: 0x1122334455667788},
		nil,
		{Version: 3, Method: "zstd", Unpacked: int64(len(plain)), Hash: 0x1122334455667788},
		{Version: 2, Method: "zlib", Unpacked: int64(len(plain)), Hash: 0x1122334455667788},
		{Version: 3, Method: "zlib", Unpacked: int64(len(plain)), Hash: 0x1122334455667788},
	} {
		if d := cmp.Diff(want, fb.Bundles[i].Compressed); d != "" {
			t.Errorf("bundle %d: %s", i, d)
		}
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := offload.Slim(path, []gfx.Target{"gfx1100"}); !errors.Is(err, offload.ErrCompressedBundle) {
		t.Errorf("slimming compressed bundles: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the rejected file changed (%v)", err)
	}
}

// le64 patches a 64-bit number into a copy.
func le64(b []byte, at int, v uint64) []byte {
	b = bytes.Clone(b)
	binary.LittleEndian.PutUint64(b[at:], v)
	return b
}

func TestReadBundlesRefuses(t *testing.T) {
	code := elfgen.CodeObject(mach1100, []string{"k"}, 10)
	good := elfgen.Bundle(elfgen.Entry{ID: hostID}, elfgen.Entry{ID: id1100, Code: code})
	const count = 24
	entry := 32 + 24 + len(hostID) // of gfx1100
	packed := elfgen.Compress(good, 2, "zstd")
	packed3 := elfgen.Compress(good, 3, "zlib")
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"garbage after padding", append(append(bytes.Clone(good), make([]byte, 5000)...), "junk"...), "neither"},
		{"magic cut", good[:20], "neither"},
		{"no count", good[:28], "number of entries: unexpected EOF"},
		{"too many entries", le64(good, count, 1<<20), "more than"},
		{"count out of range", le64(good, count, 1<<63), "out of range"},
		{"table cut", good[:entry+10], "entry 1: unexpected EOF"},
		{"id cut", good[:entry+30], "does not fit"},
		{"id too long", le64(good, entry+16, 1<<40), "does not fit"},
		{"code cut", good[:len(good)-1], "outside"},
		{"offset far", le64(good, entry, 1<<47), "outside"},
		{"size huge", le64(good, entry+8, 1<<63), "out of range"},
		{"code over the table", le64(good, entry, 10), "starts inside the table"},
		{"bad id", bytes.Replace(bytes.Clone(good), []byte("gfx1100"), []byte("gfx110z"), 1), "invalid GPU target"},
		{"unknown kind", bytes.Replace(bytes.Clone(good), []byte("hipv4"), []byte("sycl4"), 1), "unknown offload kind"},
		{"compressed header cut", packed[:9], "unexpected EOF"},
		{"compressed magic alone", packed[:4], "unexpected EOF"},
		{"compressed cut", packed[:len(packed)-3], "are there"},
		{"compressed version 1", elfgen.Compress(good, 1, "zstd"), "version 1"},
		{"compressed version 9", elfgen.Compress(good, 9, "zstd"), "version 9"},
		{"unknown method", append([]byte("CCOB\x02\x00\x07\x00"), packed[8:]...), "unknown compression method 7"},
		{"size below its header", append([]byte("CCOB\x02\x00\x01\x00\x05\x00\x00\x00"), packed[12:]...), "bundle of 5 bytes"},
		{"unpacked size too small", le64(packed3, 16, uint64(len(good)-1)), "other than"},
		{"unpacked size too large", le64(packed3, 16, uint64(len(good)+1)), "other than"},
		{"unpacked size absurd", le64(packed3, 16, 1<<40), "claims"},
		{"broken stream", le64(packed3, 40, 0), "compressed bundle"},
		{"other content", elfgen.Compress([]byte("something else, no bundle at all"), 2, "zlib"), "no offload bundle"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := offload.ReadBundles(bytes.NewReader(c.data), 0, int64(len(c.data)))
			var fe *elfdep.FormatError
			if !errors.As(err, &fe) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v, %v, want a FormatError with %q", got, err, c.want)
			}
		})
	}
	if got, err := offload.ReadBundles(bytes.NewReader(make([]byte, 9999)), 0, 9999); len(got) != 0 || err != nil {
		t.Errorf("only padding: %v, %v", got, err)
	}
	if _, err := offload.ReadBundles(bytes.NewReader(good), 0, int64(len(good))+1); err == nil {
		t.Error("a section longer than its file was read")
	}
}

func TestCodeObjectsRefuses(t *testing.T) {
	code := elfgen.CodeObject(mach1100, []string{"k"}, 10)
	for _, c := range []struct {
		name string
		code []byte
		want string
	}{
		{"code for another target", elfgen.CodeObject(mach1101, []string{"k"}, 10), "has code for gfx1101"},
		{"no ELF", []byte("LLVM bitcode, say"), "bad ELF header"},
		{"code for the CPU", elfgen.Library("x").Bytes(), "EM_X86_64, want AMDGPU"},
		{"unknown processor", elfgen.CodeObject(0xfe, nil, 10), "invalid GPU machine number"},
		{"symbols cut", code[:len(code)-100], "bad ELF header"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := elfgen.Library("l.so")
			s.Sections = []elfgen.Section{elfgen.FatBinary(elfgen.Bundle(elfgen.Entry{ID: id1100, Code: c.code}))}
			got, err := offload.ReadCodeObjects(elfgen.WriteFile(t, "l.so", s))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "l.so") {
				t.Errorf("%+v, %v, want an error with %q and the file's name", got, err, c.want)
			}
		})
	}
}

func TestCheckTargets(t *testing.T) {
	all := []gfx.Target{"gfx1030", gfx.GFX1100, gfx.GFX1101}
	fat := elfgen.WriteFile(t, "fat.so", fatLibrary([]string{"k"}))
	if got, err := offload.CheckTargets(fat, all); err != nil || len(got) != 3 {
		t.Errorf("%v, %v", got, err)
	}
	plain := elfgen.WriteFile(t, "plain.so", elfgen.Library("plain.so"))
	if _, err := offload.ReadCodeObjects(plain); !errors.Is(err, offload.ErrNoFatBinary) {
		t.Errorf("a file without GPU code: %v", err)
	}
	noKernels := elfgen.Library("e.so")
	noKernels.Sections = []elfgen.Section{elfgen.FatBinary(elfgen.Bundle(elfgen.Entry{ID: id1100, Code: elfgen.CodeObject(mach1100, nil, 10)}))}
	for _, c := range []struct {
		path           string
		want           []gfx.Target
		lacks, surplus []gfx.Target
	}{
		{fat, []gfx.Target{"gfx1100", "gfx1101"}, nil, []gfx.Target{"gfx1030"}},
		{fat, append([]gfx.Target{"gfx1102"}, all...), []gfx.Target{"gfx1102"}, nil},
		{fat, []gfx.Target{"gfx1200"}, []gfx.Target{"gfx1200"}, all},
		{plain, []gfx.Target{"gfx1100"}, []gfx.Target{"gfx1100"}, nil},
		{elfgen.WriteFile(t, "e.so", noKernels), []gfx.Target{"gfx1100"}, []gfx.Target{"gfx1100"}, nil},
	} {
		_, err := offload.CheckTargets(c.path, c.want)
		var te *offload.TargetError
		if !errors.As(err, &te) {
			t.Errorf("%s for %v: %v, want a TargetError", c.path, c.want, err)
			continue
		}
		if d := cmp.Diff(offload.TargetError{Where: c.path, Lacks: c.lacks, Surplus: c.surplus}, *te); d != "" {
			t.Error(d)
		}
		for _, x := range append(c.lacks, c.surplus...) {
			if !strings.Contains(err.Error(), string(x)) {
				t.Errorf("error %q does not name %s", err, x)
			}
		}
	}
	if _, err := offload.CheckTargets(elfgen.WriteFile(t, "x", []byte("text")), all); err == nil || errors.As(err, new(*offload.TargetError)) {
		t.Errorf("a text file: %v", err)
	}
}

func FuzzReadBundles(f *testing.F) {
	code := elfgen.CodeObject(mach1100, []string{"k"}, 1)
	good := elfgen.Bundle(elfgen.Entry{ID: hostID}, elfgen.Entry{ID: id1100, Code: code[:64]}, elfgen.Entry{ID: id1101, Code: code[:8]})
	f.Add(good)
	f.Add(append(append(bytes.Clone(good), make([]byte, 100)...), good...))
	f.Add(elfgen.Compress(good, 2, "zstd"))
	f.Add(elfgen.Compress(good, 3, "zlib"))
	f.Add(elfgen.Bundle())
	f.Add([]byte("CCOB"))
	f.Fuzz(func(t *testing.T, data []byte) {
		bundles, err := offload.ReadBundles(bytes.NewReader(data), 0, int64(len(data)))
		if err != nil {
			return
		}
		end := int64(0)
		for _, b := range bundles {
			if b.Offset < end || b.Size <= 0 || b.Offset+b.Size > int64(len(data)) {
				t.Fatalf("bundle at %d of %d bytes, after %d, in %d", b.Offset, b.Size, end, len(data))
			}
			if len(bytes.Trim(data[end:b.Offset], "\x00")) > 0 {
				t.Fatalf("bytes %d to %d were skipped", end, b.Offset)
			}
			end = b.Offset + b.Size
			limit := b.Size
			if b.Compressed != nil {
				limit = b.Compressed.Unpacked
			}
			for _, e := range b.Entries {
				if e.Offset < 0 || e.Size < 0 || e.Offset+e.Size > limit {
					t.Fatalf("entry %+v outside of %d bytes", e, limit)
				}
			}
		}
		if len(bytes.Trim(data[end:], "\x00")) > 0 {
			t.Fatalf("bytes after %d were skipped", end)
		}
	})
}

func FuzzReadFatBinary(f *testing.F) {
	f.Add(fatLibrary([]string{"k"}).Bytes())
	f.Add(elfgen.CodeObject(mach1100, []string{"k"}, 4))
	f.Add(elfgen.Spec{Static: true}.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, _, err := offload.CountKernels(bytes.NewReader(data)); err == nil && len(data) < 64 {
			t.Fatal("an ELF file shorter than its header")
		}
		if fb, err := offload.ReadFatBinary(bytes.NewReader(data)); err == nil {
			_, _ = fb.CodeObjects()
			_, _ = fb.TargetExtents()
		}
	})
}

// TestLyingHeaders: what a compressed bundle claims takes no memory before there
// is data for it.
func TestLyingHeaders(t *testing.T) {
	// A zstd frame (RFC 8878, 3.1.1) with a window and one raw block of one byte.
	frame := func(windowLog byte) []byte {
		return []byte{0x28, 0xb5, 0x2f, 0xfd, 0, (windowLog - 10) << 3, 1<<3 | 1, 0, 0, 'x'}
	}
	for name, c := range map[string]struct {
		unpacked uint32
		frame    []byte
		most     uint64
	}{
		"a window for a byte":         {1, frame(27), 4 << 20},
		"the largest window":          {2 << 30, frame(30), 4 << 20},
		"the largest that is usual":   {2 << 30, frame(27), 300 << 20},
		"much data that is not there": {2 << 30, frame(20), 8 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			b := []byte("CCOB\x02\x00\x01\x00")
			b = binary.LittleEndian.AppendUint32(b, uint32(24+len(c.frame)))
			b = binary.LittleEndian.AppendUint32(b, c.unpacked)
			b = append(append(b, make([]byte, 8)...), c.frame...)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := offload.ReadBundles(bytes.NewReader(b), 0, int64(len(b)))
			runtime.ReadMemStats(&after)
			if !errors.As(err, new(*elfdep.FormatError)) {
				t.Errorf("got %v", err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > c.most {
				t.Errorf("%d bytes allocated for a file of %d: %v", n, len(b), err)
			}
		})
	}
}
