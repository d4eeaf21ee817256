// Package containertest gives the end-to-end tests a container engine and the images of
// Debian releases. It is for tests of this project alone.
package containertest

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/internal/procgroup"
)

// Engine reaches the container engine, and in CI installs and starts one.
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

// Debian makes an image of a minimal Debian release by mmdebstrap, with more
// packages if any are named. setup are shell commands that end the making; the
// image's root is $1 in them.
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
	var said bytes.Buffer
	_, err := engine.ImportFrom(t.Context(), e, ref, func(rootfs io.Writer) error {
		cmd.Stdout, cmd.Stderr = rootfs, &said
		return procgroup.Run(t.Context(), cmd, 30*time.Second)
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
}
