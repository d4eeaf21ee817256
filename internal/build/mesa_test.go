package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// entry is a file of a root, or a link to another one.
type entry struct{ name, text, link string }

// rootfs returns the tar stream of a root.
func rootfs(t *testing.T, entries ...entry) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(e.text))}
		if e.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		err := w.WriteHeader(h)
		if err == nil {
			_, err = w.Write([]byte(e.text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// changes returns a packed changelog of a version.
func changes(t *testing.T, text string) entry {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(text))
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return entry{name: "./" + mesaChanges, text: b.String()}
}

// TestExtractMesaKeepsTheLibraries extracts a root: the libraries are in one directory under all of their
// names, and nothing else is.
func TestExtractMesaKeepsTheLibraries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const lib = "./" + mesaLibraries
	root := rootfs(t,
		entry{name: "./etc/passwd", text: "root"}, entry{name: lib + "libLLVM.so.19.1", text: "llvm"},
		entry{name: lib + "libLLVM-19.so", link: "libLLVM.so.1"}, entry{name: lib + "libLLVM.so.1", link: "libLLVM.so.19.1"},
		entry{name: lib + "libbad.so", link: "../../../../etc/passwd"}, entry{name: lib + "dri/libother.so", text: "other"},
		entry{name: lib + mesaDriver, text: "driver"}, changes(t, "mesa (25.0.7-2) trixie; urgency=medium\n\n  * text\n"))
	if err := extractMesa(dir, root); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got[f.Name()] = string(text)
	}
	manifest := got[mesaManifest]
	delete(got, mesaManifest)
	want := map[string]string{"libLLVM.so.19.1": "llvm", "libLLVM-19.so": "llvm", "libLLVM.so.1": "llvm", mesaDriver: "driver", mesaVersion: "25.0.7-2\n"}
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s is %q, want %q", name, got[name], text)
		}
	}
	if len(got) != len(want) || !strings.Contains(manifest, `"./`+mesaDriver+`"`) {
		t.Errorf("extracted %q and the manifest %s", got, manifest)
	}
}

func TestExtractMesaNeedsDriverAndVersion(t *testing.T) {
	t.Parallel()
	driver := entry{name: "./" + mesaLibraries + mesaDriver, text: "driver"}
	for name, entries := range map[string][]entry{
		"no driver": {changes(t, "mesa (25.0.7-2) trixie\n")}, "no version": {driver}, "another changelog": {driver, changes(t, "other (1) trixie\n")},
	} {
		if err := extractMesa(t.TempDir(), rootfs(t, entries...)); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
}
