package sparse

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
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
