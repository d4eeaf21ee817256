package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// smallPack packs four files, one of them sparse and two of them equal.
func smallPack(tb testing.TB) []byte {
	tb.Helper()
	dir := tb.TempDir()
	hole := make([]byte, 100_000)
	copy(hole[60_000:], "data")
	for name, b := range map[string][]byte{"server": []byte("program"), "libhole.so": hole, "liba.so": []byte("same"), "libb.so": []byte("same")} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	m, err := Build(dir, Manifest{Name: "small", Variant: "cpu", Flavour: FlavourSystem, Version: "1", Entry: Entry{Program: "server"}})
	if err != nil {
		tb.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := Pack(context.Background(), &b, dir, m, PackOptions{FrameSize: 50, Encoder: GoEncoder(zstd.SpeedFastest, 1<<20)}); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// FuzzIndex appends other indexes, with a correct checksum, to the frames of a good
// pack. Whatever they claim, Extract writes the files of the manifest or fails.
func FuzzIndex(f *testing.F) {
	pack := smallPack(f)
	x, err := readIndex(bytes.NewReader(pack), int64(len(pack)))
	if err != nil {
		f.Fatal(err)
	}
	last := x.Frames[len(x.Frames)-1]
	frames := pack[:last.Offset+last.Length]
	for _, change := range []func(*index){
		func(*index) {},
		func(x *index) { x.Frames[1].Raw++ },
		func(x *index) { x.Frames[1].Raw = 0 },
		func(x *index) { x.Frames[1].Members[0].Data += tarBlock },
		func(x *index) { x.Frames[1].Members[0].Path = "server" },
		func(x *index) { x.Frames[2].Members[0].Sparse = !x.Frames[2].Members[0].Sparse },
		func(x *index) { x.Frames[2].Members[0].Stored = 1 << 60 },
		func(x *index) { x.Frames[0].Window = MaxWindow },
		func(x *index) { x.Frames = x.Frames[:1] },
	} {
		var c index
		b, err := json.Marshal(x)
		if err == nil {
			err = json.Unmarshal(b, &c)
		}
		if err != nil {
			f.Fatal(err)
		}
		change(&c)
		if b, err = json.Marshal(&c); err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		x, err := parseIndex(body)
		if err != nil {
			if !errors.Is(err, ErrNotPack) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		tail, err := x.encode()
		if err != nil {
			return
		}
		b := append(bytes.Clone(frames), tail...)
		r, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = root.Close() }()
		err = r.Extract(context.Background(), root, ExtractOptions{Workers: 1})
		if err == nil {
			for _, file := range r.Manifest().Files {
				if d := CheckFile(context.Background(), root, file, nil); len(d) > 0 {
					t.Errorf("extracted wrong: %v", d)
				}
			}
		} else if !errors.Is(err, ErrContent) {
			t.Errorf("error of another kind: %v", err)
		}
	})
}

func FuzzSparseMap(f *testing.F) {
	for _, e := range [][]extent{nil, {{0, 10}}, {{5, 10}, {4096, 1}}, {{0, 1 << 20}}} {
		m := sparseMap(e, 1<<20)
		f.Add(m, int64(1<<20), int64(len(m))+dataBytes(e))
	}
	f.Add([]byte("1\n0\n99999999999999999999\n"), int64(5), int64(512))
	f.Add(append([]byte("2\n10\n5\n0\n5\n"), make([]byte, 512)...), int64(100), int64(522))
	f.Fuzz(func(t *testing.T, b []byte, size, stored int64) {
		if size < 0 || size > MaxFileSize {
			return
		}
		ext, read, err := readSparseMap(bytes.NewReader(b), size, stored)
		if err != nil {
			if !errors.Is(err, ErrContent) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		var end int64
		for _, e := range ext {
			if e.off < end || e.len <= 0 || e.end() > size {
				t.Fatalf("extents %v of a file of %d", ext, size)
			}
			end = e.end()
		}
		if read%tarBlock != 0 || read > int64(len(b)) || read+dataBytes(ext) != stored {
			t.Errorf("read %d of %d", read, len(b))
		}
		if !bytes.Equal(b[:read], sparseMap(ext, size)) {
			t.Errorf("%q is not the one form of its map", b[:read])
		}
	})
}
