//go:build linux && amd64

package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

// A FIFO without a writer must not block a command, and a sparse file of any size must
// not fill the memory.
func TestFilesOfFlagsAreRegularAndLimited(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo, huge := filepath.Join(dir, "fifo"), filepath.Join(dir, "huge")
	err := errors.Join(syscall.Mkfifo(fifo, 0o600), os.WriteFile(huge, nil, 0o600), os.Truncate(huge, 100<<30))
	if err != nil {
		t.Fatal(err)
	}
	grammar := func(name string) error {
		_, err := (&generationFlags{grammarFile: name}).request()
		return err
	}
	for name, read := range map[string]func(name string) error{
		"key": func(name string) error {
			_, err := readKey("--minisign-key", name, release.ParseMinisignVerifier)
			return err
		},
		"config":  func(name string) error { _, err := readConfig(name); return err },
		"media":   func(name string) error { _, err := readFileLimited(name, 1<<20); return err },
		"grammar": grammar,
	} {
		if err := read(fifo); err == nil || !strings.Contains(err.Error(), regfile.ErrNotRegular.Error()) {
			t.Errorf("%s: a FIFO: %v", name, err)
		}
		if err := read(huge); err == nil {
			t.Errorf("%s: a sparse file of 100 GB was accepted", name)
		}
	}
}
