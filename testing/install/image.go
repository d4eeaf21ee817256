// Package install gives tests of packages the machines to install on: clean
// containers of a Debian suite, made from the archive by mmdebstrap, without a
// network while they run.
//
// It drives the engine through its API and not through docker/engine, whose jobs
// run one command in a locked-down container and end: an installed service needs
// several commands in one container that lives on, and systemd as its first
// process needs the rights that jobs are there to withhold. Nothing here is
// meant for users of the project.
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

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

// Machine names what a container starts from.
type Machine struct {
	// Suite is the Debian release's name, such as "bookworm".
	Suite string
	// Include are packages beside those that every Debian has ("required") and apt.
	Include []string
}

// Engine makes machines.
type Engine struct{ api *client.Client }

// Connect reaches the engine that DOCKER_HOST names, or the local one.
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

// Close lets go of the connection.
func (e *Engine) Close() error { return e.api.Close() }

// arguments of mmdebstrap. An archive's index may be past its expiry where a
// snapshot or a mirror is used; its signature is checked all the same.
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

// image gives the reference of the machine's image, made if the engine does not
// hold it.
func (e *Engine) image(ctx context.Context, m Machine) (string, error) {
	digest := sha256.Sum256([]byte(strings.Join(m.arguments(), "\x00")))
	ref := "go-rocm-install:" + m.Suite + "-" + hex.EncodeToString(digest[:6])
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
	// The engine's client closes a source that can be closed; the rest is read here.
	importErr := e.importImage(ctx, ref, struct{ io.Reader }{rootfs})
	_, drainErr := io.Copy(io.Discard, rootfs) // lets mmdebstrap end and say why
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
