package oci_test

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/klauspost/compress/zstd"

	"forge.lthn.ai/core/go-rocm/packaging/oci"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

var epoch = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// options returns those of a small image.
func options(t *testing.T) oci.Options {
	t.Helper()
	dir := t.TempDir()
	o := oci.Options{
		Version: "0.2.0+llama.0.5.0", Epoch: epoch,
		Command: filepath.Join(dir, "program"), Copyright: []byte("Terms.\n"), BundleLayer: filepath.Join(dir, "layer"), Out: filepath.Join(dir, "out.tar"),
	}
	bundleDir := filepath.Join(dir, "bundle")
	for name, f := range map[string]struct {
		body string
		mode os.FileMode
	}{
		"program":                     {"command", 0o700},
		"bundle/llama-server":         {"server", 0o755},
		"bundle/rocblas/library/a.co": {strings.Repeat("\x00", 1<<20) + "code", 0o644},
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f.body), f.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, f.mode); err != nil {
			t.Fatal(err)
		}
	}
	m, err := bundle.Build(bundleDir, bundle.Manifest{
		Name: "llama-cpu", Variant: "cpu", Flavour: bundle.FlavourSystem, Version: "v0.5.0",
		Source: bundle.Source{Tag: "v0.5.0", Tree: strings.Repeat("ab", 20)}, SourceDateEpoch: epoch.Unix(),
		Entry: bundle.Entry{Program: "llama-server"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := bundle.WriteManifest(bundleDir, m); err != nil {
		t.Fatal(err)
	}
	o.Bundle = m
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, time.Now(), time.Unix(rand.Int64N(1<<32), 0))
	})
	if err != nil {
		t.Fatal(err)
	}
	writeLayer(t, o.BundleLayer, bundleDir, m)
	return o
}

// writeLayer writes a layer as the data archive of a bundle's Debian package is: with
// names that begin with "./".
func writeLayer(t *testing.T, name, dir string, m *bundle.Manifest) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(f)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	list := []string{bundle.ManifestName}
	for _, file := range m.Files {
		list = append(list, file.Path)
	}
	for _, file := range list {
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: "./usr/lib/go-rocm/llama/" + file, Mode: 0o644, Size: int64(len(b)), ModTime: epoch}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// open reads the image like other tools: it unpacks the tar file and reads the
// layout.
func open(t *testing.T, path string) (v1.Image, v1.Descriptor) {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "tar", "-xf", path, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil || len(list.Manifests) != 1 {
		t.Fatalf("index: %+v, %v", list, err)
	}
	img, err := index.Image(list.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return img, list.Manifests[0]
}

// entries lists the entries of the layers from the bottom, one a line, and checks
// the digests of the layers in the manifest and the configuration.
func entries(t *testing.T, img v1.Image) string {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	digestOf := func(r io.ReadCloser, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("sha256:%x", sum.Sum(nil))
	}
	var b strings.Builder
	for i, l := range layers {
		named, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if packed, plain := digestOf(l.Compressed()), digestOf(l.Uncompressed()); packed != named.String() || plain != c.RootFS.DiffIDs[i].String() {
			t.Errorf("layer %d is %s of %s, recorded as %s of %s", i, packed, plain, named, c.RootFS.DiffIDs[i])
		}
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for tr := tar.NewReader(r); ; {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if !h.ModTime.Equal(epoch) || h.Uid != h.Gid || h.Uname != "" {
				t.Errorf("%s: %v, %d:%d, %q", h.Name, h.ModTime, h.Uid, h.Gid, h.Uname)
			}
			body, err := io.ReadAll(tr)
			if err != nil {
				t.Fatal(err)
			}
			if len(body) > 100 || h.Typeflag == tar.TypeReg && strings.HasSuffix(h.Name, bundle.ManifestName) {
				body = fmt.Appendf(nil, "%d bytes", len(body))
				if strings.HasSuffix(h.Name, bundle.ManifestName) {
					body = []byte("manifest")
				}
			}
			fmt.Fprintf(&b, "%d %c %04o %d %s %q\n", i, h.Typeflag, h.Mode, h.Uid, h.Name, body)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}
