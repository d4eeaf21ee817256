package oci_test

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"forge.lthn.ai/core/go-rocm/packaging/assets"
	"forge.lthn.ai/core/go-rocm/packaging/oci"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

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
	sizeOf := func(name string) string {
		text, err := assets.Monitoring.ReadFile("monitoring/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d bytes", len(text))
	}
	want := fmt.Sprintf(`0 0 0644 0 ./usr/lib/go-rocm/llama/manifest.json "manifest"
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
2 5 0755 0 usr/share/go-rocm/ ""
2 5 0755 0 usr/share/go-rocm/monitoring/ ""
2 0 0644 0 usr/share/go-rocm/monitoring/alerts.yml %q
2 0 0644 0 usr/share/go-rocm/monitoring/dashboard.json %q
`, sizeOf("alerts.yml"), sizeOf("dashboard.json"))
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

// The layer of the command is what the compressor writes, and has the same content.
func TestRecompressesTheCommand(t *testing.T) {
	t.Parallel()
	o := options(t)
	if _, err := oci.Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	digests := func(img v1.Image) (list []string) {
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range m.Layers {
			list = append(list, l.Digest.String())
		}
		return list
	}
	img, _ := open(t, o.Out)
	want, before := entries(t, img), digests(img)
	fastest := func(content string) func(context.Context, io.Writer, io.Reader, int64) error {
		return func(_ context.Context, dst io.Writer, src io.Reader, _ int64) error {
			r, err := zstd.NewReader(src)
			if err != nil {
				return err
			}
			defer r.Close()
			w, err := zstd.NewWriter(dst, zstd.WithEncoderLevel(zstd.SpeedFastest))
			if err != nil {
				return err
			}
			_, err = io.Copy(w, io.MultiReader(r, strings.NewReader(content)))
			return errors.Join(err, w.Close())
		}
	}
	o.Recompress = fastest("")
	if _, err := oci.Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	other, _ := open(t, o.Out)
	if diff := cmp.Diff(want, entries(t, other)); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	if after := digests(other); before[0] != after[0] || before[1] != after[1] || before[2] == after[2] {
		t.Errorf("layers %v, were %v", after, before)
	}
	o.Recompress = fastest("more")
	if _, err := oci.Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another content") {
		t.Errorf("a compressor that changes the content: %v", err)
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
