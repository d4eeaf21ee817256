package sparse

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestCopyKeepsContent(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 1))
	for range 12 {
		data := make([]byte, rnd.IntN(2<<20))
		for range rnd.IntN(20) {
			at := rnd.IntN(len(data) + 1)
			for i := range rnd.IntN(200000) {
				if at+i < len(data) {
					data[at+i] = byte(rnd.Uint32())
				}
			}
		}
		f, err := os.Create(filepath.Join(t.TempDir(), "sparse"))
		if err != nil {
			t.Fatal(err)
		}
		n, err := Copy(f, bytes.NewReader(data))
		if err := errors.Join(err, f.Close()); err != nil || n != int64(len(data)) {
			t.Fatal(n, err)
		}
		if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(data, got) {
			t.Fatal("the copy differs", err)
		}
	}
}

// recorder is a file whose writes are recorded.
type recorder struct {
	data   []byte
	writes []Range
}

// WriteAt implements io.WriterAt.
func (r *recorder) WriteAt(b []byte, off int64) (int, error) {
	r.writes = append(r.writes, Range{off, off + int64(len(b))})
	return copy(r.data[off:], b), nil
}

// WriteAt leaves out the blocks of the file that become zero, wherever b begins.
func TestWriteAtSkipsZeroBlocks(t *testing.T) {
	t.Parallel()
	const k = 1 << 10
	for name, c := range map[string]struct {
		off  int64
		size int
		data []Range // of b, not zero
		want []Range // of the file, written
	}{
		"nothing":              {0, 0, nil, nil},
		"zeros":                {3 * k, 20 * k, nil, nil},
		"all":                  {0, 8 * k, []Range{{0, 8 * k}}, []Range{{0, 8 * k}}},
		"two blocks of three":  {0, 12 * k, []Range{{0, 1}, {8*k - 1, 8 * k}}, []Range{{0, 8 * k}}},
		"unaligned":            {k, 10 * k, []Range{{0, 1}}, []Range{{k, 4 * k}}},
		"unaligned, later":     {k, 10 * k, []Range{{3 * k, 3*k + 1}}, []Range{{4 * k, 8 * k}}},
		"last byte":            {k, 10 * k, []Range{{10*k - 1, 10 * k}}, []Range{{8 * k, 11 * k}}},
		"apart":                {0, 12 * k, []Range{{1, 2}, {9 * k, 9*k + 1}}, []Range{{0, 4 * k}, {8 * k, 12 * k}}},
		"less than one block":  {5 * k, k, []Range{{0, k}}, []Range{{5 * k, 6 * k}}},
		"zeros, part of block": {5 * k, k, nil, nil},
	} {
		b := make([]byte, c.size)
		for _, d := range c.data {
			for i := d.From; i < d.To; i++ {
				b[i] = 'x'
			}
		}
		w := &recorder{data: make([]byte, 32*k)}
		if err := WriteAt(w, b, c.off); err != nil || !slices.Equal(w.writes, c.want) {
			t.Errorf("%s: wrote %v, %v; want %v", name, w.writes, err, c.want)
		}
		if got := w.data[c.off:][:c.size]; !bytes.Equal(got, b) {
			t.Errorf("%s: the file has other content", name)
		}
	}
}

func TestCopyReportsReadErrors(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk on fire")
	f, err := os.Create(filepath.Join(t.TempDir(), "short"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Copy(f, iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestWriteFileKeepsExistingFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "f")
	if err := WriteFile(name, strings.NewReader("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(name, strings.NewReader("new"), 0o644); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an existing file was written over: %v", err)
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != "old" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestEditedReads(t *testing.T) {
	t.Parallel()
	r := &edited{r: strings.NewReader("0123456789"), Edit: Edit{Zero: []Range{{1, 3}, {5, 8}}, Patch: []byte("PQ"), Offset: 3}}
	want := "0\x00\x00PQ\x00\x00\x0089"
	for from := range len(want) {
		for to := from + 1; to <= len(want); to++ {
			b := make([]byte, to-from)
			if _, err := r.ReadAt(b, int64(from)); err != nil || string(b) != want[from:to] {
				t.Errorf("[%d:%d]: %q, %v", from, to, b, err)
			}
		}
	}
}
