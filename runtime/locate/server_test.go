package locate_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/locate"
)

// A program is rejected where any user can put a module of ggml beside it.
func TestFindServerRejectsSharedDirectories(t *testing.T) {
	t.Parallel()
	for mode, want := range map[os.FileMode]bool{0o755: true, 0o775: true, 0o777: false, os.ModeSticky | 0o777: false} {
		dir := t.TempDir()
		program := filepath.Join(dir, "llama-server")
		if err := errors.Join(os.WriteFile(program, nil, 0o700), os.Chmod(dir, mode)); err != nil {
			t.Fatal(err)
		}
		b, err := locate.FindServer(program)
		if (err == nil) != want || err != nil && (!errors.Is(err, locate.ErrNotServer) || !strings.Contains(err.Error(), dir)) {
			t.Errorf("in a directory with %v: %v", mode, err)
		}
		if err == nil && b.Path != program {
			t.Errorf("found %s", b.Path)
		}
	}
}
