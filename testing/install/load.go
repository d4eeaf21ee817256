package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/pkg/stdcopy"
)

// Image is an image that LoadImage loaded.
type Image struct {
	// Ref is the reference that the engine gave it.
	Ref    string
	engine *Engine
	id     string
	// before is the ID of the image that had the reference before; empty for none.
	before string
}

// LoadImage loads an image from a tar file.
func (e *Engine) LoadImage(ctx context.Context, path string) (*Image, error) {
	ref, err := imageReference(path)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	im := &Image{Ref: ref, engine: e}
	if im.before, err = e.imageID(ctx, ref); err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	if err := e.load(ctx, path, ref); err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	if im.id, err = e.imageID(ctx, ref); err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return im, nil
}

// imageID returns the ID of the image with a reference, or "" if there is none.
func (e *Engine) imageID(ctx context.Context, ref string) (string, error) {
	info, err := e.api.ImageInspect(ctx, ref)
	if errdefs.IsNotFound(err) {
		return "", nil
	}
	return info.ID, err
}

// load loads the image and checks that the engine gives it the reference.
func (e *Engine) load(ctx context.Context, path, ref string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	v, err := e.api.ServerVersion(ctx)
	if err != nil {
		return err
	}
	var in io.Reader = struct{ io.Reader }{f} // without Close, which the client would call
	if lacksZstd(v) {
		pr, pw := io.Pipe()
		defer pr.Close()
		go func() { pw.CloseWithError(decompressLayers(pw, f)) }()
		in = pr
	}
	res, err := e.api.ImageLoad(ctx, in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	const mark = "Loaded image: "
	for d := json.NewDecoder(res.Body); ; {
		var line struct{ Stream, Error string }
		switch err := d.Decode(&line); {
		case errors.Is(err, io.EOF):
			return errors.New("the engine names no image")
		case err != nil:
			return err
		case line.Error != "":
			return errors.New(line.Error)
		case strings.HasPrefix(line.Stream, mark):
			if got := strings.TrimSpace(strings.TrimPrefix(line.Stream, mark)); !strings.HasSuffix(got, ref) { // Podman adds "localhost/"
				return fmt.Errorf("the engine named it %s, want %s", got, ref)
			}
			return nil
		}
	}
}

// Remove removes the image, unless the engine had it before, and gives its reference
// back to the image that had it.
func (im *Image) Remove(ctx context.Context) error {
	now, err := im.engine.imageID(ctx, im.Ref)
	if err != nil {
		return fmt.Errorf("remove image %s: %w", im.Ref, err)
	}
	if now != im.id || im.id == im.before {
		return nil // it is not the loaded image, or was not loaded by this test
	}
	// Without force, an image that somebody has named or uses stays.
	if _, err := im.engine.api.ImageRemove(ctx, im.Ref, image.RemoveOptions{}); err != nil {
		return fmt.Errorf("remove image %s: %w", im.Ref, err)
	}
	if im.before == "" {
		return nil
	}
	if err := im.engine.api.ImageTag(ctx, im.before, im.Ref); err != nil {
		return fmt.Errorf("give the name %s back to image %s: %w", im.Ref, im.before, err)
	}
	return nil
}

// RunImage runs an image's entry point with args in a container without a network or
// privileges, in which only the directories of the image's user are writable. binds are
// as in `docker run -v`. memory limits the memory in bytes; 0 means no limit. RunImage
// returns the output.
func (e *Engine) RunImage(ctx context.Context, ref string, memory int64, binds []string, args ...string) (_ string, err error) {
	made, err := e.api.ContainerCreate(ctx, &container.Config{Image: ref, Cmd: args}, &container.HostConfig{
		Resources:   container.Resources{Memory: memory, MemorySwap: memory},
		NetworkMode: "none", ReadonlyRootfs: true, CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges"},
		Tmpfs: map[string]string{"/run/go-rocm": "uid=65532,gid=65532,mode=0700"},
		Binds: binds,
	}, nil, nil, "")
	if err != nil {
		return "", fmt.Errorf("create a container of %s: %w", ref, err)
	}
	box := &Container{engine: e, id: made.ID}
	defer func() { err = errors.Join(err, box.Remove()) }()
	ended, failed := e.api.ContainerWait(ctx, made.ID, container.WaitConditionNextExit)
	if err := e.api.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		return "", fmt.Errorf("start a container of %s: %w", ref, err)
	}
	var status int64
	select {
	case w := <-ended:
		status = w.StatusCode
	case err := <-failed:
		return "", fmt.Errorf("wait for a container of %s: %w", ref, err)
	}
	logs, err := e.api.ContainerLogs(ctx, made.ID, container.LogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return "", fmt.Errorf("read the output of %s: %w", ref, err)
	}
	defer func() { _ = logs.Close() }()
	var out, all strings.Builder
	if _, err := stdcopy.StdCopy(io.MultiWriter(&out, &all), &all, logs); err != nil {
		return "", fmt.Errorf("read the output of %s: %w", ref, err)
	}
	if status != 0 {
		return out.String(), &CommandError{Command: args, Code: int(status), Output: all.String()}
	}
	return out.String(), nil
}
