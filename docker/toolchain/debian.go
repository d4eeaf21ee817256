package toolchain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/internal/procgroup"
)

// infoPath is the file of an image with the archive's description of every installed package
// (deb822 stanzas with SHA256).
const infoPath = "/usr/share/go-rocm/packages"

// recordScript runs in the image's root while the archive's index still exists, because dpkg
// does not record the digests of the packages.
const recordScript = `mkdir -p /usr/share/go-rocm && dpkg-query -W -f '${Package}:${Architecture}=${Version}\n' | sort | xargs apt-cache show > ` + infoPath

// mmdebstrapArgs returns the arguments that create the image's root as a tar stream. The
// archive's signatures are verified. The expiry of its index is not, since that of a mirror or
// snapshot may be over.
func (s Spec) mmdebstrapArgs() []string {
	return []string{
		"--variant=minbase", "--format=tar",
		`--aptopt=Acquire::Check-Valid-Until "false"`,
		"--aptopt=Acquire::Retries 3",
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--components=" + s.Set.areas(),
		"--include=" + strings.Join(s.Set.Packages(), ","),
		// Volumes get the owner of the directory on which they are mounted.
		`--customize-hook=install -d -o 1000 -g 1000 "$1/src" "$1/build"`,
		`--customize-hook=chroot "$1" sh -euc '` + strings.ReplaceAll(recordScript, "'", `'\''`) + `'`,
		s.Suite, "-",
	}
}

func (s Spec) makeDebian(ctx context.Context, eng engine.Engine, tag string, log io.Writer) (engine.Image, error) {
	if _, err := fmt.Fprintf(log, "toolchain: making %s from Debian %s (downloads: about %s)\n", tag, s.Suite, s.Set.Download); err != nil {
		return engine.Image{}, err
	}
	if s.MmdebstrapImage != "" {
		return s.makeDebianInContainer(ctx, eng, tag, log)
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return engine.Image{}, errors.New("mmdebstrap is not installed: run `apt-get install mmdebstrap`, or name an image that has it in GOROCM_MMDEBSTRAP_IMAGE")
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", s.mmdebstrapArgs()...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(s.Epoch.Unix(), 10), "LC_ALL=C.UTF-8", "TZ=UTC")
	return engine.ImportFrom(ctx, eng, tag, func(rootfs io.Writer) error {
		cmd.Stdout, cmd.Stderr = rootfs, engine.PrefixLines(log, "toolchain: ")
		if err := procgroup.Run(ctx, cmd, cleanupTime); err != nil {
			return fmt.Errorf("mmdebstrap: %w (its messages are above)", err)
		}
		return nil
	})
}

// cleanupTime is how long an interrupted mmdebstrap may need to remove its root, which has
// some gigabytes.
const cleanupTime = 30 * time.Second
