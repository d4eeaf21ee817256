package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/pkg/stdcopy"
)

// LoadImage loads an image from a tar file and returns its reference.
func (e *Engine) LoadImage(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("load: %w", err)
	}
	defer func() { _ = f.Close() }()
	res, err := e.api.ImageLoad(ctx, f)
	if err != nil {
		return "", fmt.Errorf("load %s: %w", path, err)
	}
	defer func() { _ = res.Body.Close() }()
	const mark = "Loaded image: "
	for d := json.NewDecoder(res.Body); ; {
		var line struct{ Stream, Error string }
		switch err := d.Decode(&line); {
		case errors.Is(err, io.EOF):
			return "", fmt.Errorf("load %s: the engine names no image", path)
		case err != nil:
			return "", fmt.Errorf("load %s: %w", path, err)
		case line.Error != "":
			return "", fmt.Errorf("load %s: %s", path, line.Error)
		case strings.HasPrefix(line.Stream, mark):
			return strings.TrimSpace(strings.TrimPrefix(line.Stream, mark)), nil
		}
	}
}

// RemoveImage removes an image that LoadImage returned.
func (e *Engine) RemoveImage(ctx context.Context, ref string) error {
	_, err := e.api.ImageRemove(ctx, ref, image.RemoveOptions{Force: true, PruneChildren: true})
	if err != nil {
		return fmt.Errorf("remove image %s: %w", ref, err)
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
