// Package containertest provides a container engine and images of Debian releases for
// the end-to-end and install tests of this project.
package containertest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
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

// Debian returns the image of a minimal Debian release, which mmdebstrap makes unless the engine has one of the same
// arguments. packages are installed in addition. setup is a shell command that runs last; $1 is the root directory of the
// image.
func Debian(t *testing.T, e engine.Engine, suite, setup string, packages ...string) string {
	t.Helper()
	args := []string{"--variant=minbase", "--format=tar", "--quiet", `--aptopt=Acquire::Check-Valid-Until "false"`}
	if setup != "" {
		args = append(args, "--customize-hook="+setup)
	}
	if len(packages) > 0 {
		args = append(args, "--include="+strings.Join(packages, ","))
	}
	args = append(args, suite, "-")
	ref := fmt.Sprintf("go-rocm/test-debian:%s-%.6x", suite, sha256.Sum256(fmt.Appendf(nil, "%q", args)))
	switch _, err := e.Image(t.Context(), ref); {
	case err == nil:
		return ref
	case !errors.Is(err, engine.ErrNoImage):
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "mmdebstrap", args...)
	var log bytes.Buffer
	_, err := engine.ImportFrom(t.Context(), e, ref, func(rootfs io.Writer) error {
		cmd.Stdout, cmd.Stderr = rootfs, &log
		return procgroup.Run(t.Context(), cmd, 30*time.Second)
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	return ref
}
