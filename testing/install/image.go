// Package install provides machines for the tests of packages: clean containers of a
// Debian suite, which mmdebstrap creates from the archive, without a network while they
// run.
//
// It uses the engine's API and not docker/engine, whose jobs run one command in a
// locked-down container. An installed service needs several commands in one container,
// and systemd as its first process needs privileges that jobs do not have. The package
// is for this project's tests only.
package install

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

// Machine describes the image of a container.
type Machine struct {
	// Suite is the Debian release's name, such as "bookworm".
	Suite string
	// Include lists packages in addition to apt and those that every Debian has ("required").
	Include []string
}

// Engine creates machines.
type Engine struct{ api *client.Client }

// Connect connects to the engine that DOCKER_HOST names, or to the local one.
func Connect(ctx context.Context) (*Engine, error) {
	api, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("container engine: %w", err)
	}
	if _, err := api.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("no container engine answers at %s: %w: start it, or name another in DOCKER_HOST", api.DaemonHost(), err), api.Close())
	}
	return &Engine{api: api}, nil
}

// Close closes the connection.
func (e *Engine) Close() error { return e.api.Close() }

// arguments returns the arguments of mmdebstrap. The index of a snapshot or mirror may
// have expired; its signature is verified.
func (m Machine) arguments() []string {
	args := []string{
		"--variant=minbase", "--format=tar", "--quiet",
		`--aptopt=Acquire::Check-Valid-Until "false"`,
		"--aptopt=Acquire::Retries 3",
	}
	if len(m.Include) > 0 {
		args = append(args, "--include="+strings.Join(m.Include, ","))
	}
	return append(args, m.Suite, "-")
}

// creating has a mutex for the reference of each image.
var creating sync.Map

// image returns the reference of the machine's image. It creates the image if the engine
// does not have it; of several tests that need it, one does.
func (e *Engine) image(ctx context.Context, m Machine) (string, error) {
	digest := sha256.Sum256([]byte(strings.Join(m.arguments(), "\x00")))
	ref := "go-rocm-install:" + m.Suite + "-" + hex.EncodeToString(digest[:6])
	mutex, _ := creating.LoadOrStore(ref, &sync.Mutex{})
	one, ok := mutex.(*sync.Mutex)
	if !ok {
		return "", fmt.Errorf("creating holds a %T", mutex)
	}
	one.Lock()
	defer one.Unlock()
	if _, err := e.api.ImageInspect(ctx, ref); err == nil {
		return ref, nil
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return "", errors.New("mmdebstrap is not installed: run `apt-get install mmdebstrap`")
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", m.arguments()...)
	var said bytes.Buffer
	cmd.Stderr = &said
	rootfs, err := cmd.StdoutPipe()
	if err != nil {
		return "", fmt.Errorf("mmdebstrap: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start mmdebstrap: %w", err)
	}
	// The engine's client would close a source that is an io.Closer; the rest is read below.
	importErr := e.importImage(ctx, ref, struct{ io.Reader }{rootfs})
	_, drainErr := io.Copy(io.Discard, rootfs) // lets mmdebstrap exit and report its error
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("mmdebstrap %s: %w: %s", m.Suite, err, said.String())
	}
	return ref, errors.Join(importErr, drainErr)
}

func (e *Engine) importImage(ctx context.Context, ref string, rootfs io.Reader) error {
	r, err := e.api.ImageImport(ctx, image.ImportSource{Source: rootfs, SourceName: "-"}, ref, image.ImportOptions{})
	if err != nil {
		return fmt.Errorf("import %s: %w", ref, err)
	}
	_, err = io.Copy(io.Discard, r)
	if err := errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("import %s: %w", ref, err)
	}
	if _, err := e.api.ImageInspect(ctx, ref); err != nil {
		return fmt.Errorf("import %s: %w", ref, err)
	}
	return nil
}
