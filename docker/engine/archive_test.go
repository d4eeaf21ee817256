package engine

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The entries must not depend on who checked the source out, when, or with which umask.
func TestTarDirectoryIsReproducible(t *testing.T) {
	pack := func(umask os.FileMode, when time.Time) []byte {
		dir := t.TempDir()
		for name, mode := range map[string]os.FileMode{"b": 0o666, "a/run": 0o777} {
			p := filepath.Join(dir, name)
			err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o777&^umask), os.WriteFile(p, []byte(name), 0o600), os.Chmod(p, mode&^umask), os.Chtimes(p, when, when))
			if err != nil {
				t.Fatal(err)
			}
		}
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := errors.Join(TarDirectory(dir, 1000, time.Unix(1, 0))(w), w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	if !bytes.Equal(pack(0o022, time.Unix(5, 0)), pack(0o077, time.Unix(9, 0))) {
		t.Error("the stream differs")
	}
}
