package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// The image contains the licences of the modules that are linked into its command.
func TestImageContainsLicencesOfItsCommand(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles the command; `mage test` runs this test")
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "llama-server"), "server")
	writeFile(t, filepath.Join(dir, "licenses", "llama.cpp", "LICENSE"), "Copyright (c) 2023 Some Authors\n")
	for name, mode := range map[string]os.FileMode{"llama-server": 0o755, "licenses/llama.cpp/LICENSE": 0o644} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	m, err := bundle.Build(dir, bundle.Manifest{
		Name: "llama-cpu", Variant: "cpu", Flavour: bundle.FlavourSystem, Version: "v0.5.0", SourceDateEpoch: 1700000000,
		Source: bundle.Source{Tag: "v0.5.0", Tree: strings.Repeat("ab", 20)}, Entry: bundle.Entry{Program: "llama-server"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := bundle.WriteManifest(dir, m); err != nil {
		t.Fatal(err)
	}
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	s, d := newSession(t)
	s.Epoch = time.Unix(1700000000, 0)
	out, err := s.image(t.Context(), root, d.version, &recipe.Packed{Bundle: &stage.Result{Dir: dir}, Manifest: m}, nil)
	if err != nil {
		t.Fatal(err)
	}
	file, err := findOne(out, "*.oci.tar")
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var terms string
	for _, blob := range untar(t, bytes.NewReader(image)) {
		if !strings.HasPrefix(blob, "\x28\xb5\x2f\xfd") { // the magic number of zstd: a layer
			continue
		}
		z, err := zstd.NewReader(strings.NewReader(blob))
		if err != nil {
			t.Fatal(err)
		}
		terms += untar(t, z)["usr/share/doc/go-rocm/copyright"]
		z.Close()
	}
	for _, want := range []string{"The go-rocm authors", "github.com/spf13/cobra", "github.com/klauspost/compress", "Grant of Patent License", "The Snappy-Go Authors"} {
		if !strings.Contains(terms, want) {
			t.Errorf("the terms lack %q:\n%s", want, terms)
		}
	}
}

// untar returns the files of an archive.
func untar(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	out := map[string]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = string(b)
	}
}
