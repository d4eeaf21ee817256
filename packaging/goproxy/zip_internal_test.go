package goproxy

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/mod/zip"
)

// The go command rejects archives of more than 500 MiB (see the Go Modules
// Reference).
func TestPackZipLimitsTheSize(t *testing.T) {
	t.Parallel()
	if maxZip != 524_288_000 {
		t.Errorf("maxZip = %d", maxZip)
	}
	dir := t.TempDir()
	from := filepath.Join(dir, "go.mod")
	if err := os.WriteFile(from, []byte("module example.org/x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := Version{Path: "example.org/x", Version: "v1.0.0", Time: time.Unix(1, 0)}
	files := []zip.File{diskFile{Name: "go.mod", From: from}}
	whole := filepath.Join(dir, "whole.zip")
	if err := packZip(t.Context(), whole, v, files, maxZip); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(whole)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "limited.zip")
	if err := packZip(t.Context(), name, v, files, info.Size()-1); !errors.Is(err, ErrOptions) {
		t.Errorf("one byte too many: %v", err)
	}
	if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the archive was left behind: %v", err)
	}
	if err := packZip(t.Context(), name, v, files, info.Size()); err != nil {
		t.Errorf("exactly the limit: %v", err)
	}
}
