package toolchain

import (
	"bufio"
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// locks contains a file debian-SET.lock for each set, with one package per line,
// debian-llvm.lock with a package that is downloaded when needed, and amd.lock, the reference of
// AMD's image with its digest.
//
//go:embed *.lock
var locks embed.FS

// Locked returns the locked packages of a set; none if the set was never locked, so that each of its
// packages is a deviation.
func Locked(s Set) ([]Package, error) {
	b, err := locks.ReadFile(LockName(s))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the toolchain lock: %w", err)
	}
	_, pkgs, err := parseLock(bytes.NewReader(b))
	return pkgs, err
}

// LockName is the file of this directory that locks a set.
func LockName(s Set) string { return "debian-" + s.Name + ".lock" }

// AMDReference is the image that `mage lock` resolves for the amd kind: the
// last ROCm 6 line that AMD publishes for Ubuntu 22.04.
const AMDReference = "rocm/dev-ubuntu-22.04:6.4.4-complete"

// amdImage is the locked reference of AMD's image.
func amdImage() string {
	b, err := locks.ReadFile("amd.lock")
	if err != nil {
		return AMDReference
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return line
		}
	}
	return AMDReference
}

// FormatAMDLock writes the lock of AMD's image: the reference without its tag,
// with the digest.
func FormatAMDLock(w io.Writer, digest string) error {
	name := AMDReference[:strings.LastIndexByte(AMDReference, ':')]
	_, err := fmt.Fprintf(w, "# %s, as the registry had it when `mage lock` ran.\n%s@%s\n", AMDReference, name, digest)
	return err
}

// FormatLock formats packages as a lock file: name, version, architecture and SHA-256 on each
// line, "-" for an unknown digest.
func FormatLock(w io.Writer, pkgs []Package) error {
	for _, p := range pkgs {
		sum := p.SHA256
		if sum == "" {
			sum = "-"
		}
		if _, err := fmt.Fprintln(w, p.Name, p.Version, p.Arch, sum); err != nil {
			return err
		}
	}
	return nil
}

// parseLock reads a lock file; a line "image ID" has the image's id.
func parseLock(r io.Reader) (image string, pkgs []Package, err error) {
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		f := strings.Fields(sc.Text())
		switch {
		case len(f) == 0 || strings.HasPrefix(f[0], "#"):
		case len(f) == 2 && f[0] == "image":
			image = f[1]
		case len(f) == 4:
			if f[3] == "-" {
				f[3] = ""
			}
			pkgs = append(pkgs, Package{Name: f[0], Version: f[1], Arch: f[2], SHA256: f[3]})
		default:
			return "", nil, fmt.Errorf("line %d of the lock file is not `name version architecture sha256`: %q", n, sc.Text())
		}
	}
	return image, pkgs, sc.Err()
}

func writeLock(dir, name, image string, pkgs []Package) error {
	var b bytes.Buffer
	fmt.Fprintln(&b, "image", image)
	if err := FormatLock(&b, pkgs); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644)
}

func readLock(dir, name string) (string, []Package, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	return parseLock(f)
}
