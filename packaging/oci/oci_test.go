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

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
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

func TestBuildWritesThreeLayers(t *testing.T) {
	t.Parallel()
	o := options(t)
	digest, err := oci.Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	img, desc := open(t, o.Out)
	if desc.Digest.String() != digest || desc.Platform.String() != "linux/amd64" || desc.Annotations["org.opencontainers.image.ref.name"] != "0.2.0-llama.0.5.0" {
		t.Errorf("got %+v, digest %s", desc, digest)
	}
	const want = `0 0 0644 0 ./usr/lib/go-rocm/llama/manifest.json "manifest"
0 0 0644 0 ./usr/lib/go-rocm/llama/llama-server "server"
0 0 0644 0 ./usr/lib/go-rocm/llama/rocblas/library/a.co "1048580 bytes"
1 5 0755 0 etc/ ""
1 0 0644 0 etc/group "root:x:0:\ngo-rocm:x:65532:\n"
1 0 0644 0 etc/passwd "root:x:0:0:root:/:/sbin/nologin\ngo-rocm:x:65532:65532:go-rocm:/var/lib/go-rocm:/sbin/nologin\n"
1 5 0755 0 run/ ""
1 5 0700 65532 run/go-rocm/ ""
1 5 1777 0 tmp/ ""
1 5 0755 0 var/ ""
1 5 0755 0 var/lib/ ""
1 5 0755 65532 var/lib/go-rocm/ ""
2 5 0755 0 usr/ ""
2 5 0755 0 usr/bin/ ""
2 0 0755 0 usr/bin/go-rocm "command"
2 5 0755 0 usr/share/ ""
2 5 0755 0 usr/share/doc/ ""
2 5 0755 0 usr/share/doc/go-rocm/ ""
2 0 0644 0 usr/share/doc/go-rocm/copyright "Terms.\n"
`
	if diff := cmp.Diff(want, entries(t, img)); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c.Config.User != "65532:65532" || c.OS != "linux" || c.Architecture != "amd64" || !c.Created.Equal(epoch) || c.Config.Entrypoint[0] != "/usr/bin/go-rocm" {
		t.Errorf("config %+v", c)
	}
	// The label would have to cover the many licences in the bundle.
	if l, ok := c.Config.Labels["org.opencontainers.image.licenses"]; ok {
		t.Errorf("unexpected licence label %q", l)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(o.Out), ".oci-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// The image depends neither on the files' times, which options randomises, nor on
// their paths.
func TestBuildIsReproducible(t *testing.T) {
	t.Parallel()
	var sums [2][sha256.Size]byte
	for i := range sums {
		o := options(t)
		if _, err := oci.Build(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(o.Out)
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = sha256.Sum256(b)
	}
	if sums[0] != sums[1] {
		t.Error("two images of the same inputs differ")
	}
}

func TestBuildRejects(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(t *testing.T, o *oci.Options)
		want   error
		text   string
	}{
		"no version":  {func(_ *testing.T, o *oci.Options) { o.Version = "" }, oci.ErrOptions, "Version is empty"},
		"no time":     {func(_ *testing.T, o *oci.Options) { o.Epoch = time.Time{} }, oci.ErrOptions, "Epoch"},
		"no manifest": {func(_ *testing.T, o *oci.Options) { o.Bundle = nil }, oci.ErrOptions, "Bundle is empty"},
		"no layer":    {func(_ *testing.T, o *oci.Options) { o.BundleLayer += "x" }, fs.ErrNotExist, "layer"},
		"no terms":    {func(_ *testing.T, o *oci.Options) { o.Copyright = nil }, oci.ErrOptions, "Copyright is empty"},
		"no command":  {func(_ *testing.T, o *oci.Options) { o.Command += "x" }, fs.ErrNotExist, "usr/bin/go-rocm"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			tt.change(t, &o)
			if _, err := oci.Build(t.Context(), o); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
			if _, err := os.Stat(o.Out); err == nil {
				t.Error("an image was written")
			}
		})
	}
}

// Compressed with gzip, the layers of a hip bundle had twice the size: its libraries
// repeat themselves at distances beyond gzip's window.
func TestLayersAreZstd(t *testing.T) {
	t.Parallel()
	o := options(t)
	if _, err := oci.Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	img, _ := open(t, o.Out)
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range layers {
		if m.Layers[i].MediaType != types.OCILayerZStd {
			t.Errorf("layer %d has the type %s", i, m.Layers[i].MediaType)
		}
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		head := make([]byte, zstd.HeaderMaxSize)
		n, err := io.ReadFull(r, head)
		if err := errors.Join(err, r.Close()); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
		var h zstd.Header
		if err := h.Decode(head[:n]); err != nil {
			t.Errorf("layer %d: %v", i, err)
		}
	}
}

// The bottom layer must have the bundle of the manifest.
func TestBuildRejectsAnotherLayer(t *testing.T) {
	t.Parallel()
	o, other := options(t), options(t)
	dir := filepath.Join(filepath.Dir(other.Out), "bundle")
	m, err := bundle.Build(dir, bundle.Manifest{
		Name: "llama-cpu", Variant: "cpu", Flavour: bundle.FlavourSystem, Version: "v0.6.0",
		Source: bundle.Source{Tag: "v0.6.0", Tree: strings.Repeat("ab", 20)}, SourceDateEpoch: epoch.Unix(),
		Entry: bundle.Entry{Program: "llama-server"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := bundle.WriteManifest(dir, m); err != nil {
		t.Fatal(err)
	}
	writeLayer(t, other.BundleLayer, dir, m)
	o.BundleLayer = other.BundleLayer
	if _, err := oci.Build(t.Context(), o); !errors.Is(err, oci.ErrBundle) || !strings.Contains(err.Error(), m.Digest()) {
		t.Errorf("the layer of another bundle: %v", err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	f, err := os.Create(empty)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tar.NewWriter(z).Close(), z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	o.BundleLayer = empty
	if _, err := oci.Build(t.Context(), o); !errors.Is(err, oci.ErrBundle) || !strings.Contains(err.Error(), bundle.ManifestName) {
		t.Errorf("an empty layer: %v", err)
	}
	if _, err := os.Stat(o.Out); err == nil {
		t.Error("an image was written")
	}
}
