package engine

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

type docker struct {
	api   *client.Client
	owner owner
}

// newDocker wraps an API client and removes the containers of killed runs.
func newDocker(ctx context.Context, api *client.Client) (*docker, error) {
	owner, err := currentOwner()
	if err != nil {
		return nil, err
	}
	d := &docker{api: api, owner: owner}
	if err := d.removeOrphans(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *docker) Close() error { return d.api.Close() }

func (d *docker) Image(ctx context.Context, ref string) (Image, error) {
	info, err := d.api.ImageInspect(ctx, ref)
	if errdefs.IsNotFound(err) {
		return Image{}, fmt.Errorf("%w: %s", ErrNoImage, ref)
	}
	if err != nil {
		return Image{}, fmt.Errorf("inspect image %s: %w", ref, err)
	}
	img := Image{ID: info.ID, Digests: info.RepoDigests}
	if info.Config != nil {
		img.Labels = info.Config.Labels
	}
	return img, nil
}

func (d *docker) Pull(ctx context.Context, ref string, progress io.Writer) (Image, error) {
	r, err := d.api.ImagePull(ctx, ref, image.PullOptions{Platform: "linux/amd64"})
	if err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", ref, err)
	}
	defer r.Close()
	if _, err := follow(r, progress); err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", ref, err)
	}
	return d.Image(ctx, ref)
}

func (d *docker) Resolve(ctx context.Context, ref string) (string, error) {
	info, err := d.api.DistributionInspect(ctx, ref, "")
	if err != nil {
		return "", fmt.Errorf("query the registry for %s: %w", ref, err)
	}
	return info.Descriptor.Digest.String(), nil
}

func (d *docker) Import(ctx context.Context, ref string, rootfs io.Reader) (Image, error) {
	// The image gets its name when it is complete: some engines also create an image from
	// a stream that ends early.
	r, err := d.api.ImageImport(ctx, image.ImportSource{Source: rootfs, SourceName: "-"}, "", image.ImportOptions{Platform: "linux/amd64"})
	if err != nil {
		return Image{}, fmt.Errorf("import %s: %w", ref, err)
	}
	defer r.Close()
	id, err := follow(r, io.Discard)
	if err != nil {
		return Image{}, fmt.Errorf("import %s: %w", ref, err)
	}
	if err := ctx.Err(); err != nil {
		return Image{}, fmt.Errorf("import %s: %w", ref, err)
	}
	if err := d.api.ImageTag(ctx, id, ref); err != nil {
		return Image{}, fmt.Errorf("import %s: name the image %.19s: %w", ref, id, err)
	}
	return d.Image(ctx, ref)
}

// follow reads the engine's stream of JSON messages to its end, passes on the
// finished steps and returns the last status, or the error in the stream.
func follow(r io.Reader, progress io.Writer) (last string, err error) {
	dec := json.NewDecoder(r)
	for {
		var m struct {
			ID, Status, Error string
		}
		err := dec.Decode(&m)
		if errors.Is(err, io.EOF) {
			return last, nil
		}
		if err != nil {
			return "", fmt.Errorf("read the engine's progress: %w", err)
		}
		if m.Error != "" {
			return "", errors.New(m.Error)
		}
		last = m.Status
		if m.Status == "Pull complete" || m.Status == "Already exists" || m.ID == "" {
			if _, err := fmt.Fprintln(progress, m.ID, m.Status); err != nil {
				return "", err
			}
		}
	}
}

// imageFiles is a container that is never started.
type imageFiles struct {
	d  *docker
	id string
}

func (d *docker) Files(ctx context.Context, ref string) (Files, error) {
	id, err := d.newContainer(ctx, &container.Config{Image: ref, Cmd: []string{"/nothing"}}, nil)
	if err != nil {
		return nil, fmt.Errorf("open the files of image %s: %w", ref, err)
	}
	return &imageFiles{d: d, id: id}, nil
}

func (f *imageFiles) Close() error {
	return f.d.remove(f.id)
}

func (f *imageFiles) Stat(ctx context.Context, p string) (Entry, error) {
	st, err := f.d.api.ContainerStatPath(ctx, f.id, p)
	if errdefs.IsNotFound(err) {
		return Entry{}, fmt.Errorf("%w: %s", ErrNotExist, p)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("stat %s in the image: %w", p, err)
	}
	e := Entry{Size: st.Size, Dir: st.Mode.IsDir()}
	if st.Mode&fs.ModeSymlink != 0 { // Podman has a target for every file
		e.LinkTarget = st.LinkTarget
	}
	return e, nil
}

func (f *imageFiles) Walk(ctx context.Context, p string, visit func(*tar.Header, io.Reader) error) error {
	return f.d.copyOut(ctx, f.id, p, visit)
}

// copyOut streams the tar entries of a path of a container to visit.
func (d *docker) copyOut(ctx context.Context, id, p string, visit func(*tar.Header, io.Reader) error) error {
	r, _, err := d.api.CopyFromContainer(ctx, id, p)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("%w: %s", ErrNotExist, p)
	}
	if err != nil {
		return fmt.Errorf("copy %s out: %w", p, err)
	}
	defer r.Close()
	tr := tar.NewReader(r)
	root := "" // name of the first entry: Docker's is the last element of p, Podman's "/"
	for first := true; ; first = false {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("copy %s out: %w", p, err)
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if first {
			root = name
		}
		h.Name = path.Join(path.Base(p), strings.TrimPrefix(name, root))
		if err := visit(h, tr); err != nil {
			return fmt.Errorf("copy %s out: %w", h.Name, err)
		}
	}
}
