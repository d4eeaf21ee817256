package engine

import (
	"archive/tar"
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
)

func (d *docker) Run(ctx context.Context, job Job) (err error) {
	id, err := d.create(ctx, job)
	if err != nil {
		return fmt.Errorf("job %s: %w", job.Name, err)
	}
	defer func() {
		if e := d.remove(id); e != nil && err == nil {
			err = e
		}
	}()
	if err := d.copyInputs(ctx, id, job); err != nil {
		return fmt.Errorf("job %s: %w", job.Name, err)
	}
	if err := d.start(ctx, id, job); err != nil {
		return err
	}
	for _, o := range job.Out {
		if err := d.copyOut(ctx, id, o.Path, o.Read); err != nil {
			return fmt.Errorf("job %s: %w", job.Name, err)
		}
	}
	if job.CommitAs == "" {
		return nil
	}
	if err := d.commit(ctx, id, job.CommitAs); err != nil {
		return fmt.Errorf("job %s: keep the image %s: %w", job.Name, job.CommitAs, err)
	}
	return nil
}

// commit creates an image from a container, without the labels of the container.
func (d *docker) commit(ctx context.Context, id, ref string) error {
	info, err := d.api.ContainerInspect(ctx, id)
	if err != nil {
		return err
	}
	// Labels cannot be removed, only cleared. Podman needs the configuration, which
	// for Docker is the default.
	_, err = d.api.ContainerCommit(ctx, id, container.CommitOptions{
		Reference: ref, Config: info.Config,
		Changes: []string{`LABEL "` + labelOwner + `"=""`, `LABEL "` + labelName + `"=""`},
	})
	return err
}

func (d *docker) create(ctx context.Context, job Job) (string, error) {
	network := container.NetworkMode("none")
	if job.Network {
		network = "default"
	}
	host := &container.HostConfig{
		NetworkMode:    network,
		ReadonlyRootfs: job.CommitAs == "",
		CapDrop:        []string{"ALL"},
		CapAdd:         job.Caps,
		SecurityOpt:    []string{"no-new-privileges"},
		Tmpfs:          map[string]string{"/tmp": "rw,exec,nosuid,nodev,mode=1777"},
		Resources:      container.Resources{Memory: job.Memory, NanoCPUs: int64(job.CPUs * 1e9)},
	}
	if job.CommitAs != "" || len(job.Caps) > 0 {
		// Package managers switch users, set owners and mount: the default
		// set of capabilities, and files of /tmp belong to the image then.
		host.CapDrop, host.SecurityOpt, host.Tmpfs = nil, nil, nil
	}
	if job.Stdout != nil {
		host.LogConfig = container.LogConfig{Type: "none"} // the engine would keep a copy on its disk
	}
	volumes := make(map[string]struct{}, len(job.Volumes))
	for _, v := range job.Volumes {
		volumes[v] = struct{}{}
	}
	return d.newContainer(ctx, &container.Config{
		Hostname: cmp.Or(job.Host, "build"), Image: job.Image, Entrypoint: job.Cmd[:1], Cmd: job.Cmd[1:],
		Env: job.Env, WorkingDir: job.Dir, Volumes: volumes,
		User:         fmt.Sprintf("%d:%d", job.UID, job.GID),
		AttachStdout: true, AttachStderr: true,
	}, host)
}

// copyInputs fills the directories of the job's inputs.
func (d *docker) copyInputs(ctx context.Context, id string, job Job) error {
	for _, in := range job.In {
		if err := d.copyIn(ctx, id, in.Dir, in.Write); err != nil {
			return err
		}
	}
	return nil
}

func (d *docker) copyIn(ctx context.Context, id, dir string, write func(*tar.Writer) error) error {
	pr, pw := io.Pipe()
	go func() {
		tw := tar.NewWriter(pw)
		err := write(tw)
		if err == nil {
			err = tw.Close()
		}
		pw.CloseWithError(err)
	}()
	err := d.api.CopyToContainer(ctx, id, dir, pr, container.CopyToContainerOptions{})
	pr.CloseWithError(io.ErrClosedPipe) // stops the writer if the engine has stopped reading
	if err != nil {
		return fmt.Errorf("copy into %s: %w", dir, err)
	}
	return nil
}

// start runs the container to its end with its output going to the job's log.
func (d *docker) start(ctx context.Context, id string, job Job) error {
	hijack, err := d.api.ContainerAttach(ctx, id, container.AttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		// Some engines prepare the container when a client attaches. Only the answer to the
		// start has the reason of a failure.
		if e := d.api.ContainerStart(ctx, id, container.StartOptions{}); e != nil {
			err = e
		}
		return fmt.Errorf("job %s: follow its output: %w", job.Name, err)
	}
	defer hijack.Close()
	exited, failed := d.api.ContainerWait(ctx, id, container.WaitConditionNextExit)
	if err := d.api.ContainerStart(ctx, id, container.StartOptions{}); err != nil {
		return fmt.Errorf("job %s: start: %w", job.Name, err)
	}

	last := &tail{max: keptLines}
	stdout, stderr := last.stream(), last.stream()
	if job.Log != nil {
		stdout, stderr = io.MultiWriter(stdout, job.Log), io.MultiWriter(stderr, job.Log)
	}
	if job.Stdout != nil {
		stdout = job.Stdout
	}
	copied := make(chan error, 1)
	go func() {
		_, err := stdcopy.StdCopy(stdout, stderr, hijack.Reader)
		copied <- err
	}()
	var res container.WaitResponse
	select {
	case res = <-exited:
		if err := <-copied; err != nil {
			return fmt.Errorf("job %s: read its output: %w", job.Name, err)
		}
	case err := <-copied: // the output ends with the command, or its reader has failed
		if err != nil {
			if ctx.Err() != nil {
				return waitError(ctx, job, err)
			}
			return fmt.Errorf("job %s: read its output: %w", job.Name, err)
		}
		select {
		case res = <-exited:
		case err := <-failed:
			return waitError(ctx, job, err)
		}
	case err := <-failed:
		return waitError(ctx, job, err)
	}
	if res.StatusCode == 0 {
		return nil
	}
	oom := false
	if info, err := d.api.ContainerInspect(ctx, id); err == nil && info.State != nil {
		oom = info.State.OOMKilled
	}
	return &ExitError{Job: job.Name, Code: res.StatusCode, OOM: oom, LastLogs: last.Lines()}
}

func waitError(ctx context.Context, job Job, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("job %s: stopped: %w", job.Name, ctx.Err())
	}
	return fmt.Errorf("job %s: wait for its end: %w", job.Name, err)
}
