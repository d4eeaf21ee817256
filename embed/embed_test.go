package payload

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// newPack packs a bundle of the variant, some 300 kB.
func newPack(t testing.TB, variant string) []byte {
	t.Helper()
	dir := t.TempDir()
	noise := make([]byte, 300_000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(r.IntN(256))
	}
	for name, b := range map[string][]byte{"llama-server": noise, "libx.so": noise[:1000]} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m, err := bundle.Build(dir, bundle.Manifest{
		Name: "llama-" + variant, Variant: variant, Flavour: bundle.FlavourSystem, Version: "v1", Entry: bundle.Entry{Program: "llama-server"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := bundle.Pack(context.Background(), &b, dir, m, bundle.PackOptions{Encoder: bundle.GoEncoder(zstd.SpeedFastest, 1<<20)}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// embeddedFS returns the parts in a directory as go:embed would.
func embeddedFS(t *testing.T, dir string) fstest.MapFS {
	t.Helper()
	out := fstest.MapFS{"payload/README": &fstest.MapFile{Data: []byte("text")}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out["payload/"+e.Name()] = &fstest.MapFile{Data: b}
	}
	return out
}

func TestWritePartsRoundTrip(t *testing.T) {
	packed := newPack(t, "cpu")
	for _, size := range []int64{1 << 10, 4096, 100_000, int64(len(packed)), int64(len(packed)) / 2, 0} {
		dir := t.TempDir()
		if size == 1<<10 { // 1000 parts of a few bytes are too small
			if _, err := WriteParts(dir, "cpu", bytes.NewReader(packed), 16); err == nil {
				t.Error("too many parts were written")
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		}
		names, err := WriteParts(dir, "cpu", bytes.NewReader(packed), size)
		if err != nil {
			t.Fatal(err)
		}
		fsys := embeddedFS(t, dir)
		r, err := OpenIn(fsys, "cpu")
		if err != nil {
			t.Fatalf("%d parts of %d bytes: %v", len(names), size, err)
		}
		if err := r.Verify(context.Background()); err != nil {
			t.Errorf("%d parts of %d bytes: %v", len(names), size, err)
		}
		if _, err := OpenIn(fsys, "hip"); !errors.Is(err, ErrNotEmbedded) {
			t.Errorf("another variant: %v", err)
		}
		if len(names) > 2 {
			delete(fsys, "payload/"+names[1])
			if _, err := OpenIn(fsys, "cpu"); err == nil || !strings.Contains(err.Error(), "part 001 is missing") {
				t.Errorf("without a part: %v", err)
			}
		}
	}
}

// A smaller bundle leaves no part of a larger one, and a failure leaves the earlier
// bundle unchanged.
func TestWritePartsReplacesEarlierParts(t *testing.T) {
	packed := newPack(t, "cpu")
	dir := t.TempDir()
	write := func(r io.Reader, size int64) ([]string, error) { return WriteParts(dir, "cpu", r, size) }
	if _, err := write(bytes.NewReader(packed), 50_000); err != nil {
		t.Fatal(err)
	}
	if _, err := write(io.MultiReader(bytes.NewReader(packed[:120_000]), iotest.ErrReader(errors.New("cut off"))), 50_000); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("a reader that fails: %v", err)
	}
	if _, err := OpenIn(embeddedFS(t, dir), "cpu"); err != nil {
		t.Errorf("after a failure: %v", err)
	}
	names, err := write(bytes.NewReader(packed), 200_000)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if !slices.Equal(left, names) {
		t.Errorf("the directory contains %q, want %q", left, names)
	}
	for _, bad := range []struct {
		variant string
		size    int64
	}{{"cpu", -1}, {"cpu", MaxPartSize + 1}, {"", 0}, {"../x", 0}} {
		if _, err := WriteParts(dir, bad.variant, bytes.NewReader(packed), bad.size); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
	if _, err := write(bytes.NewReader(nil), 0); err == nil {
		t.Error("an empty pack was accepted")
	}
}

func TestOpenRejectsWrongVariant(t *testing.T) {
	dir := t.TempDir()
	if _, err := WriteParts(dir, "hip", bytes.NewReader(newPack(t, "cpu")), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenIn(embeddedFS(t, dir), "hip"); err == nil || !strings.Contains(err.Error(), "cpu") {
		t.Errorf("parts of another variant: %v", err)
	}
}

// The test compares reads across every boundary with the concatenated bytes.
func TestMultiReaderAt(t *testing.T) {
	whole := []byte("the quick brown fox jumps over the lazy dog")
	var readers []io.ReaderAt
	var sizes []int64
	for rest, n := whole, 0; len(rest) > 0; n++ {
		k := min(n%7, len(rest)) // empty parts among them
		readers, sizes = append(readers, bytes.NewReader(rest[:k])), append(sizes, int64(k))
		rest = rest[k:]
	}
	p, err := NewMultiReaderAt(readers, sizes)
	if err != nil {
		t.Fatal(err)
	}
	if p.Size() != int64(len(whole)) {
		t.Fatalf("size %d", p.Size())
	}
	for off := 0; off <= len(whole)+1; off++ {
		for n := 0; n <= len(whole)+1; n++ {
			got, want := make([]byte, n), make([]byte, n)
			gn, gerr := p.ReadAt(got, int64(off))
			wn, werr := bytes.NewReader(whole).ReadAt(want, int64(off))
			if n == 0 {
				werr = nil // bytes.Reader returns io.EOF for an empty read at the end; both are right
				gerr = nil
			}
			if gn != wn || !bytes.Equal(got, want) || !errors.Is(gerr, werr) {
				t.Fatalf("at %d, %d bytes: %d %q %v, want %d %q %v", off, n, gn, got, gerr, wn, want, werr)
			}
		}
	}
	if _, err := p.ReadAt(nil, -1); err == nil {
		t.Error("a negative offset was accepted")
	}
	short, err := NewMultiReaderAt([]io.ReaderAt{bytes.NewReader(whole)}, []int64{100})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := short.ReadAt(make([]byte, 60), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a part that is shorter than its size: %v", err)
	}
	if _, err := NewMultiReaderAt(readers, nil); err == nil {
		t.Error("parts without sizes were accepted")
	}
}

// The test opens every bundle that is embedded in the test itself. Without one, Open
// returns ErrNotEmbedded.
func TestOpenEmbedded(t *testing.T) {
	vs, err := Variants()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vs {
		if r, err := OpenVariant(v); err != nil || r.Manifest().Variant != v {
			t.Errorf("variant %s: %v", v, err)
		}
	}
	switch _, err := Open(); {
	case len(vs) == 0 && !errors.Is(err, ErrNotEmbedded):
		t.Errorf("without a bundle: %v", err)
	case len(vs) == 1 && err != nil:
		t.Error(err)
	case len(vs) > 1 && (err == nil || !strings.Contains(err.Error(), vs[0])):
		t.Errorf("with several bundles: %v", err)
	}
}

func FuzzPartName(f *testing.F) {
	for _, s := range []string{"llama-hip.tar.zst.000", "llama-.tar.zst.000", "llama-a.tar.zst.0000", "README", "llama-a.tar.zst.-01", "llama-a.tar.zst", ".000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if v, n, ok := parsePartName(s); ok && PartName(v, n) != s {
			t.Errorf("%q is %q part %d, which is %q", s, v, n, PartName(v, n))
		}
	})
}

// zeros is an endless reader of zeros.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// Parts have at most 95 MiB, since git hosts reject files of 100 MB.
func TestDefaultPartSize(t *testing.T) {
	const most = 99_614_720
	dir := t.TempDir()
	names, err := WriteParts(dir, "hip", io.LimitReader(zeros{}, most+1), 0)
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int64
	for _, n := range names {
		info, err := os.Stat(filepath.Join(dir, n))
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, info.Size())
	}
	if !slices.Equal(sizes, []int64{most, 1}) {
		t.Errorf("parts of %d bytes", sizes)
	}
}
