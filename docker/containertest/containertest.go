// Package containertest provides a container engine and images of Debian releases for
// the end-to-end and install tests of this project.
package containertest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/internal/procgroup"
)

// Engine connects to the container engine. In CI it installs and starts one if
// necessary. The test fails if there is no engine.
func Engine(t *testing.T) engine.Engine {
	t.Helper()
	e, err := engine.Connect(t.Context(), engine.ConnectOptions{
		MayInstall: func() bool { return os.Getenv("CI") == "true" }, LogDir: t.TempDir(), Log: os.Stderr,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// Debian creates an image of a minimal Debian release with mmdebstrap and imports it as
// ref. packages are installed in addition. setup is a shell command that runs last; $1
// is the root directory of the image.
func Debian(t *testing.T, e engine.Engine, ref, suite, setup string, packages ...string) {
	t.Helper()
	args := []string{"--variant=minbase", "--format=tar", "--quiet", `--aptopt=Acquire::Check-Valid-Until "false"`}
	if setup != "" {
		args = append(args, "--customize-hook="+setup)
	}
	if len(packages) > 0 {
		args = append(args, "--include="+strings.Join(packages, ","))
	}
	cmd := exec.CommandContext(t.Context(), "mmdebstrap", append(args, suite, "-")...)
	var log bytes.Buffer
	_, err := engine.ImportFrom(t.Context(), e, ref, func(rootfs io.Writer) error {
		cmd.Stdout, cmd.Stderr = rootfs, &log
		return procgroup.Run(t.Context(), cmd, 30*time.Second)
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
}

// EnsureDebian is Debian unless the engine has an image ref, which an earlier test or run made.
func EnsureDebian(t *testing.T, e engine.Engine, ref, suite, setup string, packages ...string) {
	t.Helper()
	switch _, err := e.Image(t.Context(), ref); {
	case errors.Is(err, engine.ErrNoImage):
		Debian(t, e, ref, suite, setup, packages...)
	case err != nil:
		t.Fatal(err)
	}
}
