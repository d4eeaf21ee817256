// Package oci writes the container image of go-rocm: the command and the bundle
// without a base image ("FROM scratch"), as an OCI image layout in one tar file for
// `docker load`, `podman load` and `skopeo copy oci-archive:`.
//
// The bundle contains its whole user space, so the image needs no distribution. The
// program runs as an unprivileged user; whoever starts the container passes the kfd
// and drm devices to it. The same inputs produce the same bytes. The package neither
// pushes nor signs images.
//
// The layers are compressed with zstd (application/vnd.oci.image.layer.v1.tar+zstd).
// Docker reads them since version 23, containerd since 1.5, Podman since 4. Docker 20.10,
// which Debian 12 has, does not: there, skopeo must decompress the layers first, see
// docs/install.md.
package oci

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// Errors that Build returns wrapped.
var (
	// ErrOptions reports a missing option.
	ErrOptions = errors.New("oci options")
	// ErrBundle reports that the layer does not contain the bundle.
	ErrBundle = errors.New("oci bundle")
)

// UserID is the ID of the user and group that the image runs as. By convention no
// account of a host has it.
const UserID = 65532

// Paths in the image.
const (
	commandPath   = "usr/bin/go-rocm"
	copyrightPath = "usr/share/doc/go-rocm/copyright"
	bundlePath    = "usr/lib/go-rocm/llama"
	statePath     = "var/lib/go-rocm"
	runPath       = "run/go-rocm"
	// monitoringPath is that of the Debian package.
	monitoringPath = "usr/share/go-rocm/monitoring"
)

// Options are the inputs of Build.
type Options struct {
	// Version of go-rocm, for the labels and the reference of the image.
	Version string
	// Epoch is the time of every entry and of the image.
	Epoch time.Time
	// Command is the static program without an embedded bundle.
	Command string
	// Copyright is the copyright file of Command. The bundle contains the licences
	// of its own components.
	Copyright []byte
	// Bundle is the manifest of the bundle in BundleLayer, which is a tar archive,
	// compressed with zstd: the data archive of the bundle's Debian package. The bundle
	// is the largest part and changes least often: in a layer of its own, at the bottom,
	// it is built and stored once for many versions of the command.
	Bundle      *bundle.Manifest
	BundleLayer string
	// Recompress makes the layer of the command smaller than a compressor in Go does: it
	// reads a zstd stream of size bytes from src and writes one with the same content to
	// dst. nil leaves the layer as it is.
	Recompress func(ctx context.Context, dst io.Writer, src io.Reader, size int64) error
	// Out is the path of the tar file.
	Out string
}

func (o Options) check() error {
	for name, value := range map[string]string{"Version": o.Version, "Command": o.Command, "Copyright": string(o.Copyright), "BundleLayer": o.BundleLayer, "Out": o.Out} {
		if value == "" {
			return fmt.Errorf("%w: %s is empty", ErrOptions, name)
		}
	}
	if o.Bundle == nil {
		return fmt.Errorf("%w: Bundle is empty", ErrOptions)
	}
	if o.Epoch.Unix() <= 0 {
		return fmt.Errorf("%w: Epoch is %s: set the time of the release", ErrOptions, o.Epoch.UTC().Format(time.RFC3339))
	}
	return nil
}

// Build writes the image to o.Out atomically and returns its digest ("sha256:…"),
// by which registries refer to it.
func Build(ctx context.Context, o Options) (digest string, err error) {
	if err := o.check(); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(o.Out), ".oci-")
	if err != nil {
		return "", fmt.Errorf("make a working directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()

	if err := checkBundleLayer(ctx, o.BundleLayer, o.Bundle); err != nil {
		return "", err
	}
	layers, err := o.layers(ctx, work)
	if err != nil {
		return "", err
	}
	img, err := image(o, layers)
	if err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	dir := filepath.Join(work, "layout")
	// Docker reads the reference from the second annotation, others from the first.
	name := map[string]string{
		"org.opencontainers.image.ref.name": reference(o.Version),
		"io.containerd.image.name":          "go-rocm:" + reference(o.Version),
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{
		Add:        img,
		Descriptor: v1.Descriptor{Annotations: name, Platform: platform()},
	})
	if _, err := layout.Write(dir, index); err != nil {
		return "", fmt.Errorf("write the layout: %w", err)
	}
	if err := writeDockerManifest(dir, img, name["io.containerd.image.name"]); err != nil {
		return "", err
	}
	staged := filepath.Join(work, "image.tar")
	if err := tarLayout(ctx, dir, staged, o.Epoch); err != nil {
		return "", err
	}
	if err := os.Rename(staged, o.Out); err != nil {
		return "", fmt.Errorf("rename the finished image: %w", err)
	}
	h, err := img.Digest()
	return h.String(), err
}

// layers returns the layers of the image from the bottom: the bundle, what programs
// expect of a system, and the command.
func (o Options) layers(ctx context.Context, work string) ([]v1.Layer, error) {
	system, command := filepath.Join(work, "system"), filepath.Join(work, "command")
	if err := writeLayer(ctx, system, systemEntries(), o.Epoch); err != nil {
		return nil, err
	}
	entries, err := commandEntries(o)
	if err != nil {
		return nil, err
	}
	if err := writeLayer(ctx, command, entries, o.Epoch); err != nil {
		return nil, err
	}
	if o.Recompress != nil {
		if command, err = recompress(ctx, command, o.Recompress); err != nil {
			return nil, fmt.Errorf("layer: compress: %w", err)
		}
	}
	var layers []v1.Layer
	for _, name := range []string{o.BundleLayer, system, command} {
		l, err := openLayer(name)
		if err != nil {
			return nil, fmt.Errorf("layer: %w", err)
		}
		layers = append(layers, l)
	}
	return layers, nil
}

// openLayer returns the layer in a file.
func openLayer(name string) (v1.Layer, error) {
	return tarball.LayerFromFile(name, tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd))
}

// writeDockerManifest adds Docker's own manifest list to the layout, as `docker
// save` does since version 25: an engine without containerd's image store reads
// only that one (https://github.com/moby/docker-image-spec).
func writeDockerManifest(dir string, img v1.Image, tag string) error {
	m, err := img.Manifest()
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	blob := func(h v1.Hash) string { return path.Join("blobs", h.Algorithm, h.Hex) }
	entry := struct {
		Config           string
		RepoTags, Layers []string
	}{Config: blob(m.Config.Digest), RepoTags: []string{tag}}
	for _, l := range m.Layers {
		entry.Layers = append(entry.Layers, blob(l.Digest))
	}
	b, err := json.Marshal([]any{entry})
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the layout: %w", err)
	}
	return nil
}

// reference returns a version as an image tag, in which "+" is not allowed.
func reference(version string) string {
	out := []byte(version)
	for i, c := range out {
		if c == '+' {
			out[i] = '-'
		}
	}
	return string(out)
}

func platform() *v1.Platform { return &v1.Platform{OS: "linux", Architecture: "amd64"} }

// image assembles the layers and the configuration of containers.
func image(o Options, layers []v1.Layer) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for i, comment := range []string{"the bundle " + o.Bundle.Name + " " + o.Bundle.Version, "accounts and directories", "the command"} {
		var err error
		img, err = mutate.Append(img, mutate.Addendum{
			Layer:     layers[i],
			MediaType: types.OCILayerZStd,
			History:   v1.History{Created: v1.Time{Time: o.Epoch.UTC()}, CreatedBy: "go-rocm", Comment: comment},
		})
		if err != nil {
			return nil, err
		}
	}
	c, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	c = c.DeepCopy()
	c.Architecture, c.OS, c.Created = platform().Architecture, platform().OS, v1.Time{Time: o.Epoch.UTC()}
	c.Config = v1.Config{
		User:       fmt.Sprintf("%d:%d", UserID, UserID),
		Entrypoint: []string{"/" + commandPath},
		Cmd:        []string{"help"},
		WorkingDir: "/" + statePath,
		Env:        []string{"PATH=/usr/bin", "HOME=/" + statePath, "XDG_RUNTIME_DIR=/" + runPath},
		StopSignal: "SIGTERM",
		Labels: map[string]string{
			"org.opencontainers.image.title":       "go-rocm",
			"org.opencontainers.image.description": "language models on AMD GPUs: command and llama.cpp " + o.Bundle.Version,
			"org.opencontainers.image.version":     o.Version,
			"org.opencontainers.image.source":      "https://forge.lthn.ai/core/go-rocm",
			"org.opencontainers.image.created":     o.Epoch.UTC().Format(time.RFC3339),
		},
	}
	return mutate.ConfigFile(img, c)
}

// tarLayout writes the files of the layout to one tar file.
func tarLayout(ctx context.Context, dir, out string, epoch time.Time) (err error) {
	f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	err = filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || file == dir || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		e := entry{path: filepath.ToSlash(name), from: file, mode: 0o644}
		if d.IsDir() {
			e = entry{path: e.path, mode: fs.ModeDir | 0o755}
		}
		return e.write(ctx, w, epoch)
	})
	if err != nil {
		return fmt.Errorf("pack the layout: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("pack the layout: %w", err)
	}
	return errors.Join(f.Chmod(0o644), f.Sync()) // whatever the umask
}
