package recipe

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWriteSparseKeepsContentAndHoles(t *testing.T) {
	content := make([]byte, 1<<20)
	copy(content[300_000:], "in the middle")
	name := filepath.Join(t.TempDir(), "f")
	if err := writeSparse(name, bytes.NewReader(content), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("content differs: %v", err)
	}
	if err := writeSparse(name, strings.NewReader(""), 0o644); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an existing file was written over: %v", err)
	}
	if blocks := diskBlocks(t, name); blocks*512 >= 1<<20 {
		t.Errorf("%d bytes on disk: no holes", blocks*512)
	}
}

func diskBlocks(t *testing.T, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no stat")
	}
	return st.Blocks
}
