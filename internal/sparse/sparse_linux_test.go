package sparse

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWriteFileLeavesHoles(t *testing.T) {
	t.Parallel()
	content := make([]byte, 1<<20)
	copy(content[300_000:], "in the middle")
	name := filepath.Join(t.TempDir(), "f")
	if err := WriteFile(name, bytes.NewReader(content), 0o644); err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	if n := st.Blocks * 512; n >= 1<<20 {
		t.Errorf("%d bytes on disk: no holes", n)
	}
}

// A file that holds fewer bytes than its size says, as one that is truncated while
// it is copied, must not be replaced by a copy padded with zeros.
func TestRewriteRejectsShortFile(t *testing.T) {
	t.Parallel()
	short, err := os.Open("/sys/devices/system/cpu/online") // a page by its size
	if err != nil {
		t.Skip(err)
	}
	defer short.Close()
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Rewrite(name, short, Edit{}); err == nil || !strings.Contains(err.Error(), "shrank") {
		t.Errorf("got %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(name))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != "old" {
		t.Errorf("%q, %v", b, err)
	}
}
