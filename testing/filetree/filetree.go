// Package filetree writes the files of a test.
package filetree

import (
	"os"
	"path/filepath"
	"testing"
)

// Write writes files, whose names have slashes, to a temporary directory and returns it.
func Write(t testing.TB, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	WriteTo(t, dir, files)
	return dir
}

// WriteTo is Write for a directory that exists.
func WriteTo(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, body := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
