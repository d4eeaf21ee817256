//go:build linux && amd64

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadFileLimitedRejectsLargeFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "red.png")
	if err := os.WriteFile(name, make([]byte, 11), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readFileLimited(name, 10); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a file of 11 bytes: %v", err)
	}
	if raw, err := readFileLimited(name, 11); err != nil || len(raw) != 11 {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
}
