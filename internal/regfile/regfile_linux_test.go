package regfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

// readers are the ways to read a file in dir of at most 4 bytes.
func readers(t *testing.T, dir string) map[string]func(name string) ([]byte, error) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return map[string]func(string) ([]byte, error){
		"Read":   func(name string) ([]byte, error) { return regfile.Read(filepath.Join(dir, name), 4) },
		"ReadIn": func(name string) ([]byte, error) { return regfile.ReadIn(root, name, 4) },
	}
}

func TestReadLimitsSize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string]string{"empty": "", "full": "1234", "large": "12345"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, "large"), 100<<30); err != nil { // sparse
		t.Fatal(err)
	}
	if err := os.Symlink("full", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for how, read := range readers(t, dir) {
		for name, want := range map[string]string{"empty": "", "full": "1234", "link": "1234"} {
			if b, err := read(name); err != nil || string(b) != want {
				t.Errorf("%s %s: %q, %v", how, name, b, err)
			}
		}
		if _, err := read("large"); !errors.Is(err, regfile.ErrTooLarge) {
			t.Errorf("%s large: %v", how, err)
		}
		var failed *os.PathError
		if _, err := read("missing"); !errors.Is(err, os.ErrNotExist) || !errors.As(err, &failed) || failed.Op != "open" {
			t.Errorf("%s missing: %v", how, err)
		}
	}
}

// A FIFO without a writer must not block the reader.
func TestReadRejectsSpecialFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := errors.Join(syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600), os.Mkdir(filepath.Join(dir, "dir"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("fifo", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for how, read := range readers(t, dir) {
		for _, name := range []string{"fifo", "link", "dir"} {
			if _, err := read(name); !errors.Is(err, regfile.ErrNotRegular) {
				t.Errorf("%s %s: %v", how, name, err)
			}
		}
	}
	if _, err := regfile.Read("/dev/zero", 4); !errors.Is(err, regfile.ErrNotRegular) {
		t.Errorf("a device: %v", err)
	}
}

func TestReadTextByEncoding(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "text")
	for content, want := range map[string]string{"": "", "a": "a", "\ufeff": "", "\ufeffa\ufeff": "a\ufeff", "\xff": "\xff"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := regfile.ReadText(name, 100); err != nil || string(b) != want {
			t.Errorf("%q: %q, %v", content, b, err)
		}
	}
	for _, content := range []string{"\xff\xfea\x00", "\xfe\xff\x00a", "\xff\xfe\x00\x00", "\x00\x00\xfe\xff"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := regfile.ReadText(name, 100); !errors.Is(err, regfile.ErrNotUTF8) {
			t.Errorf("%q: %q, %v", content, b, err)
		}
	}
}
