package toolchain

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
)

// FetchedPackage is the name of the file that Fetch returns.
const FetchedPackage = "package.deb"

// exitNotInArchive is the fetch script's exit status if the archive does not have the version.
const exitNotInArchive = 65

// fetchScript downloads one package from the image's archive: $1 is its name, $2 its version,
// $3 its architecture. It needs no root privileges and does not change the image. apt verifies
// the archive's signature and the package's digest.
const fetchScript = `
mkdir -p /build/apt/lists/partial /build/apt/archives/partial
set -- "$1:$3=$2" -o Dir::State::Lists=/build/apt/lists -o Dir::Cache=/build/apt -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none
name=$1; shift
apt-get "$@" -o APT::Update::Error-Mode=any update
apt-get "$@" --print-uris download "$name" >/dev/null || exit 65
cd /build/apt/archives
apt-get "$@" download "$name"
mv ./*.deb /build/package.deb
`

// NotInArchiveError reports that the archive has no such version of a package.
type NotInArchiveError struct{ Package Package }

// Error names the package.
func (e *NotInArchiveError) Error() string {
	return fmt.Sprintf("the archive has no %s %s for %s: it has changed since the toolchain's image was built; remove that image and the toolchain-* directories of the stage cache, to build from the archive's current packages",
		e.Package.Name, e.Package.Version, e.Package.Arch)
}

// Fetch returns a package that is not installed in the toolchain's image, as the file
// FetchedPackage, from the archive of the image's packages. If p has a SHA256, the package must
// match it.
func Fetch(ctx context.Context, eng engine.Engine, cache *stage.Cache, s Spec, t *Toolchain, p Package, log io.Writer) (*stage.Result, error) {
	return cache.Do(ctx, "package-"+p.Name, p, func(ctx context.Context, dir string) error {
		if err := Ensure(ctx, eng, s, t, log); err != nil {
			return err
		}
		file := filepath.Join(dir, FetchedPackage)
		err := eng.Run(ctx, engine.Job{
			Name: "fetch " + p.Name, Image: t.ID,
			Cmd: []string{"/bin/sh", "-eu", "-c", fetchScript, "fetch", p.Name, p.Version, p.Arch},
			Env: []string{"LC_ALL=C.UTF-8", "TZ=UTC", "HOME=/build", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
			Dir: "/build", UID: User, GID: User, Network: true, Volumes: []string{"/build"}, Log: log,
			Out: []engine.Output{{Path: "/build/" + FetchedPackage, Read: func(_ *tar.Header, r io.Reader) error {
				f, err := os.Create(file)
				if err != nil {
					return err
				}
				_, err = io.Copy(f, r)
				return errors.Join(err, f.Chmod(0o644), f.Close())
			}}},
		})
		var exit *engine.ExitError
		if errors.As(err, &exit) && exit.Code == exitNotInArchive {
			return &NotInArchiveError{Package: p}
		}
		if err != nil {
			return err
		}
		sum, err := stage.FileDigest(file)
		if err != nil {
			return err
		}
		if p.SHA256 != "" && sum != p.SHA256 {
			return fmt.Errorf("%s %s from the archive has sha256 %s, locked is %s", p.Name, p.Version, sum, p.SHA256)
		}
		return nil
	})
}
