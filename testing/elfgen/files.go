package elfgen

import (
	"os"
	"path/filepath"
	"testing"
)

// WriteTree writes files below a new temporary directory and returns it. The
// content of a file is a []byte or a Spec; a string is the target of a symbolic
// link.
func WriteTree(t testing.TB, files map[string]any) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		p := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch c := content.(type) {
		case string:
			err = os.Symlink(c, p)
		case []byte:
			err = os.WriteFile(p, c, 0o755)
		case Spec:
			err = os.WriteFile(p, c.Bytes(), 0o755)
		default:
			t.Fatalf("%s: content of type %T", name, c)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// WriteFile writes one file into a new temporary directory and returns its path.
func WriteFile(t testing.TB, name string, content any) string {
	t.Helper()
	return filepath.Join(WriteTree(t, map[string]any{name: content}), name)
}

// Library returns a library with a SONAME and dependencies.
func Library(soname string, needed ...string) Spec {
	return Spec{SONAME: soname, Needed: needed}
}
