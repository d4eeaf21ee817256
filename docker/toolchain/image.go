package toolchain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/engine"
)

// makeDebianInContainer runs mmdebstrap in a container of an image that has it, for
// hosts that are not Debian.
func (s Spec) makeDebianInContainer(ctx context.Context, eng engine.Engine, tag string, log io.Writer) (engine.Image, error) {
	return engine.ImportFrom(ctx, eng, tag, func(rootfs io.Writer) error {
		err := eng.Run(ctx, engine.Job{
			Name: "mmdebstrap", Image: s.MmdebstrapImage,
			Cmd:     append([]string{"mmdebstrap", "--mode=root", "--skip=check/canmount"}, s.mmdebstrapArgs()...),
			Env:     []string{"SOURCE_DATE_EPOCH=" + strconv.FormatInt(s.Epoch.Unix(), 10), "LC_ALL=C.UTF-8", "TZ=UTC", "TMPDIR=/make"},
			Dir:     "/make",
			Network: true, Caps: []string{"SYS_ADMIN", "MKNOD"}, Volumes: []string{"/make"}, Log: log,
			Stdout: rootfs, // it is imported while it is written, without a file of some gigabytes
		})
		if err != nil {
			return fmt.Errorf("mmdebstrap in image %s: %w", s.MmdebstrapImage, err)
		}
		return nil
	})
}

// addScript adds what a compile needs to a given image and records its packages. $1 is a list of packages.
const addScript = `
for p in $1; do dpkg-query -W "$p" >/dev/null 2>&1 || missing="${missing-} $p"; done
apt-get -o Acquire::Check-Valid-Until=false update
if [ -n "${missing-}" ]; then
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
fi
` + recordScript + ` || [ -s ` + infoPath + ` ]
rm -rf /var/lib/apt/lists/*
install -d -o 1000 -g 1000 /src /build
`

// makeFromBase adds what is missing to an image that the user or the amd toolchain names. ROCm
// itself must be in the image.
func (s Spec) makeFromBase(ctx context.Context, eng engine.Engine, base, tag string, log io.Writer) (engine.Image, error) {
	if base == "" || (s.Kind == "amd" && s.BaseImage == "" && !strings.Contains(base, "@sha256:")) {
		return engine.Image{}, errors.New("the digest of AMD's image is not recorded yet: run `mage lock` where a registry can be reached, or name an image in GOROCM_BASE_IMAGE")
	}
	if _, err := eng.Image(ctx, base); errors.Is(err, engine.ErrNoImage) {
		if _, err := eng.Pull(ctx, base, log); err != nil {
			return engine.Image{}, err
		}
	} else if err != nil {
		return engine.Image{}, err
	}
	script := addScript
	if s.Set.ROCm {
		script += "[ -x " + s.ROCm() + "/bin/hipconfig ] || [ -x /usr/bin/hipconfig ] || { echo 'this image has no ROCm: hipconfig is missing'; exit 1; }\n"
	}
	err := eng.Run(ctx, engine.Job{
		Name: "prepare " + base, Image: base,
		Cmd:     []string{"/bin/sh", "-eu", "-c", script, "prepare", strings.Join(s.Set.addedPackages(), " ")},
		Env:     []string{"LC_ALL=C.UTF-8", "TZ=UTC", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		Dir:     "/",
		Network: true, CommitAs: tag, Log: log,
	})
	if err != nil {
		return engine.Image{}, err
	}
	return eng.Image(ctx, tag)
}
