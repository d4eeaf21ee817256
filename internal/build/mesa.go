package build

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/procgroup"
)

// mesaSuite is the Debian release whose lavapipe computes the operations. That of Debian 12 damages the
// heap in some cases (docs/backends.md).
const mesaSuite = "trixie"

// The files of a stage with Mesa's lavapipe: the manifest of the driver, which is beside it with the libraries
// that it needs, and the driver's version.
const (
	mesaManifest = "lvp_icd.json"
	mesaVersion  = "version"
)

// mesaArguments are those of mmdebstrap for Mesa's Vulkan drivers and what they need, unpacked and not
// installed, as a tar stream.
var mesaArguments = []string{
	"--variant=extract", "--format=tar", "--quiet", `--aptopt=Acquire::Check-Valid-Until "false"`,
	"--aptopt=Acquire::Retries 3", "--include=mesa-vulkan-drivers", mesaSuite, "-",
}

// mesa returns the directory of the stage with lavapipe. Nothing that is published depends on it, so that the
// release's current packages do.
func (s *Session) mesa(ctx context.Context) (string, error) {
	res, err := s.Recipe.Cache.Do(ctx, "lavapipe", mesaArguments, func(ctx context.Context, dir string) error {
		cmd := exec.CommandContext(ctx, "mmdebstrap", mesaArguments...)
		var said bytes.Buffer
		cmd.Stderr = &said
		stream, w := io.Pipe()
		cmd.Stdout = w
		ended := make(chan error, 1)
		go func() {
			err := procgroup.Run(ctx, cmd, time.Minute)
			if err != nil {
				err = fmt.Errorf("mmdebstrap: %w\n%s", err, said.String())
			}
			w.CloseWithError(err)
			ended <- err
		}()
		err := extractMesa(dir, stream)
		_, drainErr := io.Copy(io.Discard, stream) // what follows the archive
		return errors.Join(err, drainErr, <-ended)
	})
	if err != nil {
		return "", fmt.Errorf("lavapipe of Debian %s: %w", mesaSuite, err)
	}
	return res.Dir, nil
}

const (
	mesaLibraries = "usr/lib/x86_64-linux-gnu/"
	mesaDriver    = "libvulkan_lvp.so"
	mesaChanges   = "usr/share/doc/mesa-vulkan-drivers/changelog.Debian.gz"
)

// library matches the names of shared libraries.
var library = regexp.MustCompile(`^[A-Za-z0-9_.+-]+\.so(\.[0-9.]+)?$`)

// changesVersion matches the first line of a Debian changelog.
var changesVersion = regexp.MustCompile(`^mesa \(([0-9][A-Za-z0-9.+~-]*)\)`)

// extractMesa writes the libraries of a root in a tar stream, a manifest and the version to a directory.
func extractMesa(dir string, root io.Reader) error {
	links := map[string]string{}
	var version string
	for r := tar.NewReader(root); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path.Clean(h.Name), "/")
		base := path.Base(name)
		switch {
		case name == mesaChanges:
			if version, err = readVersion(r); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		case path.Dir(name)+"/" != mesaLibraries || !library.MatchString(base):
		case h.Typeflag == tar.TypeSymlink && path.Base(h.Linkname) == h.Linkname && library.MatchString(h.Linkname):
			links[base] = h.Linkname
		case h.Typeflag == tar.TypeReg:
			if err := writeStream(filepath.Join(dir, base), r); err != nil {
				return err
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, mesaDriver)); err != nil || version == "" {
		return fmt.Errorf("the packages have no %s, or no %s", mesaDriver, mesaChanges)
	}
	for name := range links {
		target := name
		for range links { // a link may point to a link
			if next, ok := links[target]; ok {
				target = next
			}
		}
		if err := os.Link(filepath.Join(dir, target), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	// A path with a directory is relative to the manifest's.
	manifest := `{"file_format_version": "1.0.1", "ICD": {"library_path": "./` + mesaDriver + `", "api_version": "1.3.0"}}` + "\n"
	return errors.Join(
		os.WriteFile(filepath.Join(dir, mesaManifest), []byte(manifest), 0o600),
		os.WriteFile(filepath.Join(dir, mesaVersion), []byte(version+"\n"), 0o600),
	)
}

func writeStream(file string, r io.Reader) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// readVersion returns the version of Mesa at the top of a Debian changelog.
func readVersion(r io.Reader) (string, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return "", err
	}
	first, err := bufio.NewReader(z).ReadString('\n')
	if err != nil {
		return "", err
	}
	m := changesVersion.FindStringSubmatch(first)
	if m == nil {
		return "", fmt.Errorf("it begins with %q", first)
	}
	return m[1], nil
}
