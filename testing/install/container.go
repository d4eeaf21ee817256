package install

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
)

// Container is a running machine.
type Container struct {
	engine *Engine
	id     string
}

// Start starts the machine with a single process, which waits.
func (e *Engine) Start(ctx context.Context, m Machine) (*Container, error) {
	return e.start(ctx, m, container.Config{Cmd: []string{"sleep", "infinity"}}, container.HostConfig{})
}

// Boot starts the machine with systemd as its first process; Include must contain it.
// systemd manages control groups, mounts file systems and inspects processes for its
// services. This needs privileges that containers do not have by default.
func (e *Engine) Boot(ctx context.Context, m Machine) (*Container, error) {
	return e.start(ctx, m,
		container.Config{
			Cmd:        []string{"/lib/systemd/systemd"},
			Env:        []string{"container=docker"},
			StopSignal: "SIGRTMIN+3",
		},
		container.HostConfig{
			CapAdd:       []string{"SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE"},
			SecurityOpt:  []string{"seccomp=unconfined", "apparmor=unconfined"},
			CgroupnsMode: container.CgroupnsModeHost,
			Binds:        []string{"/sys/fs/cgroup:/sys/fs/cgroup"},
			Tmpfs:        map[string]string{"/run": "exec,mode=755"},
		})
}

func (e *Engine) start(ctx context.Context, m Machine, c container.Config, h container.HostConfig) (*Container, error) {
	ref, err := e.image(ctx, m)
	if err != nil {
		return nil, err
	}
	c.Image = ref
	c.Hostname = "clean"
	h.NetworkMode = "none"
	made, err := e.api.ContainerCreate(ctx, &c, &h, nil, nil, "")
	if err != nil {
		return nil, fmt.Errorf("create a container of %s: %w", m.Suite, err)
	}
	box := &Container{engine: e, id: made.ID}
	if err := e.api.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		return nil, errors.Join(fmt.Errorf("start a container of %s: %w", m.Suite, err), box.Remove())
	}
	return box, nil
}

// Remove stops the machine and deletes it. It uses a context of its own, since it must
// work after the test's context was cancelled.
func (c *Container) Remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.engine.api.ContainerRemove(ctx, c.id, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
		return fmt.Errorf("remove container %.12s: %w", c.id, err)
	}
	return nil
}

// CommandError reports a command that exited with a status other than 0.
type CommandError struct {
	Command []string
	Code    int
	Output  string // standard output and error
}

// Error returns the command, its status and its output.
func (e *CommandError) Error() string {
	return fmt.Sprintf("%q ended with status %d:\n%s", e.Command, e.Code, e.Output)
}

// Run runs a command as user ("" is root) and returns its standard output. A status other
// than 0 is a *CommandError.
func (c *Container) Run(ctx context.Context, user string, command ...string) (string, error) {
	made, err := c.engine.api.ContainerExecCreate(ctx, c.id, container.ExecOptions{
		User: user, Cmd: command, AttachStdout: true, AttachStderr: true,
		Env: []string{"LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"},
	})
	if err != nil {
		return "", fmt.Errorf("run %q: %w", command, err)
	}
	stream, err := c.engine.api.ContainerExecAttach(ctx, made.ID, container.ExecAttachOptions{})
	if err != nil {
		return "", fmt.Errorf("run %q: %w", command, err)
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, stream.Close)
	defer stop()
	var out, all bytes.Buffer
	if _, err := stdcopy.StdCopy(io.MultiWriter(&out, &all), &all, stream.Reader); err != nil {
		return "", fmt.Errorf("read the output of %q: %w", command, errors.Join(ctx.Err(), err))
	}
	done, err := c.engine.api.ContainerExecInspect(ctx, made.ID)
	if err != nil {
		return "", fmt.Errorf("run %q: %w", command, err)
	}
	if done.ExitCode != 0 {
		return out.String(), &CommandError{Command: command, Code: done.ExitCode, Output: all.String()}
	}
	return out.String(), nil
}

// Copy copies the file from of the host to the path to, readable by all.
func (c *Container) Copy(ctx context.Context, from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy into the container: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("copy into the container: %w", err)
	}
	return c.put(ctx, to, f, info.Size())
}

// Write writes text to the path to, readable by all.
func (c *Container) Write(ctx context.Context, to, text string) error {
	return c.put(ctx, to, bytes.NewReader([]byte(text)), int64(len(text)))
}

func (c *Container) put(ctx context.Context, to string, body io.Reader, size int64) error {
	if _, err := c.Run(ctx, "", "mkdir", "-p", path.Dir(to)); err != nil {
		return err
	}
	pr, pw := io.Pipe()
	go func() {
		tw := tar.NewWriter(pw)
		err := tw.WriteHeader(&tar.Header{Name: path.Base(to), Mode: 0o644, Size: size, ModTime: time.Now()})
		if err == nil {
			_, err = io.Copy(tw, body)
		}
		if err == nil {
			err = tw.Close()
		}
		pw.CloseWithError(err)
	}()
	err := c.engine.api.CopyToContainer(ctx, c.id, path.Dir(to), pr, container.CopyToContainerOptions{})
	pr.CloseWithError(io.ErrClosedPipe) // stops the writer if the engine has stopped reading
	if err != nil {
		return fmt.Errorf("copy to %s in the container: %w", to, err)
	}
	return nil
}
