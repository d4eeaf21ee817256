package bundle_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// longName needs a pax record: no slash splits it into ustar's fields.
const longName = "rocblas/library/TensileLibrary_Type_4xi8I_HPA_Contraction_l_Alik_Bjlk_Cijk_Dijk_fallback_with_a_name_beyond_one_hundred_bytes_gfx1101.hsaco"

// text returns n bytes that compress about as well as machine code.
func text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	words := make([][]byte, 64)
	for i := range words {
		words[i] = make([]byte, 3+r.IntN(14))
		for j := range words[i] {
			words[i][j] = byte(r.IntN(256))
		}
	}
	var b bytes.Buffer
	for b.Len() < n {
		b.Write(words[r.IntN(len(words))])
	}
	return b.Bytes()[:n]
}

// holey returns size zero bytes with pieces of data at the offsets.
func holey(size int, data map[int]int) []byte {
	b := make([]byte, size)
	for off, n := range data {
		copy(b[off:], text(uint64(off+1), n))
	}
	return b
}

// fixtureFiles returns the files of a small bundle with every kind of file that the
// format distinguishes: executables, equal files, holes, an empty file, long names,
// and files for one target.
func fixtureFiles() map[string][]byte {
	shared := text(9, 30_000)
	return map[string][]byte{
		"ld-linux-x86-64.so.2":                   text(1, 20_000),
		"llama-server":                           text(2, 150_000),
		"libempty.so":                            {},
		"libfoo.so.1":                            text(3, 70_001),
		"libfoo.so":                              text(3, 70_001),
		"libsparse.so":                           holey(9<<20, map[int]int{0: 5000, 1 << 20: 300_000, 8<<20 + 17: 4096}),
		"libhole.so":                             make([]byte, 1<<20+5),
		"libtail.so":                             holey(1<<20, map[int]int{1<<20 - 3: 3}),
		"rocblas/library/Kernels_gfx1100.hsaco":  text(4, 90_000),
		"rocblas/library/Kernels_gfx1101.hsaco":  text(5, 80_000),
		"rocblas/library/fallback_gfx1100.dat":   shared,
		"rocblas/library/fallback_gfx1101.dat":   shared,
		"rocblas/library/both_gfx1100_gfx1101.x": text(6, 10),
		longName:                                 text(7, 12_345),
		"licenses/libstdc++6/copyright":          []byte("text\n"),
	}
}

func writeFiles(tb testing.TB, dir string, files map[string][]byte) {
	tb.Helper()
	for name, b := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o600); err != nil {
			tb.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if name == "llama-server" || name == "ld-linux-x86-64.so.2" {
			mode = 0o755
		}
		if err := os.Chmod(p, mode); err != nil {
			tb.Fatal(err)
		}
	}
}

// head returns a manifest without files.
func head() bundle.Manifest {
	return bundle.Manifest{
		Name: "llama-test", Variant: "hip", Flavour: bundle.FlavourHermetic, Version: "v0.0.1",
		Targets:         []gfx.Target{"gfx1100", "gfx1101"},
		Source:          bundle.Source{Tag: "v0.0.1", Tree: "4b825dc642cb6eb9a060e54bf8d69288fbee4904"},
		SourceDateEpoch: 1_700_000_000,
		Entry:           bundle.Entry{Loader: "ld-linux-x86-64.so.2", Program: "llama-server"},
	}
}

// fixture writes the small bundle and returns its directory and manifest.
func fixture(tb testing.TB) (string, *bundle.Manifest) {
	tb.Helper()
	dir := tb.TempDir()
	writeFiles(tb, dir, fixtureFiles())
	m, err := bundle.Build(dir, head())
	if err != nil {
		tb.Fatal(err)
	}
	return dir, m
}

// fast returns an encoder for tests that are not about compression.
func fast() bundle.Encoder { return bundle.GoEncoder(zstd.SpeedFastest, 1<<20) }

// packed returns the small bundle packed.
func packed(tb testing.TB, o bundle.PackOptions) ([]byte, *bundle.Manifest) {
	tb.Helper()
	dir, m := fixture(tb)
	var b bytes.Buffer
	if _, err := bundle.Pack(context.Background(), &b, dir, m, o); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes(), m
}

func open(tb testing.TB, b []byte) *bundle.Reader {
	tb.Helper()
	r, err := bundle.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func openRoot(tb testing.TB, dir string) *os.Root {
	tb.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = root.Close() })
	return root
}
