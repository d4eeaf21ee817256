package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
)

// A container of ours has a name that nothing else has, and two labels: the
// process that created it, and its own name. The second one proves the first: an
// image that is committed from a container inherits its labels, and so do the
// containers that somebody creates from that image, but not its name.
const (
	labelOwner = "org.lthn.go-rocm.owner"
	labelName  = "org.lthn.go-rocm.container"
	namePrefix = "go-rocm-"
)

// newContainer creates a container of ours and returns its id.
func (d *docker) newContainer(ctx context.Context, config *container.Config, host *container.HostConfig) (string, error) {
	random := make([]byte, 8)
	_, _ = rand.Read(random) // never fails
	name := namePrefix + hex.EncodeToString(random)
	config.Labels = map[string]string{labelOwner: d.owner.String(), labelName: name}
	c, err := d.api.ContainerCreate(ctx, config, host, nil, nil, name)
	if err != nil {
		return "", fmt.Errorf("create the container: %w", err)
	}
	return c.ID, nil
}

// isOrphan reports whether a container is one of ours whose process has exited.
func (d *docker) isOrphan(c *container.Summary) bool {
	name := c.Labels[labelName]
	if !strings.HasPrefix(name, namePrefix) || len(c.Names) != 1 || strings.TrimPrefix(c.Names[0], "/") != name {
		return false
	}
	o, ok := parseOwner(c.Labels[labelOwner])
	return ok && o.hasExited(d.owner, startTime)
}

// removeOrphans removes the containers of processes that have exited.
func (d *docker) removeOrphans(ctx context.Context) error {
	list, err := d.api.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelName))})
	if err != nil {
		return fmt.Errorf("list the containers of earlier runs: %w", err)
	}
	for i := range list {
		if !d.isOrphan(&list[i]) {
			continue
		}
		err := d.remove(list[i].ID)
		if err != nil && !errdefs.IsNotFound(errors.Unwrap(err)) && !errdefs.IsConflict(errors.Unwrap(err)) {
			return err
		}
	}
	return nil
}

// remove stops and deletes a container with its anonymous volumes. It has a
// timeout of its own, since it must also work after the job's context ended. The
// timeout is long, because an error discards the result of a job that succeeded: on
// a busy machine, the files of a compile took more than a minute to delete.
func (d *docker) remove(id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if err := d.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
		return fmt.Errorf("remove container %.12s: %w", id, err)
	}
	return nil
}
