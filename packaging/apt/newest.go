package apt

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/packaging/deb"
)

// NewestVersion gives the version and the SHA-256 of the newest package of a name in
// the repository in dir, by Debian's order; both are empty when there is none.
// No signature is checked: who builds on the answer has Publish check it.
func NewestVersion(dir, suite, name string) (version, digest string, err error) {
	index := filepath.Join(dir, filepath.FromSlash(path.Join(suiteDir(suite), component, "binary-"+architecture, "Packages")))
	text, err := os.ReadFile(index)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	var packages []paragraph
	if err == nil {
		packages, err = parse(bytes.NewReader(text))
	}
	if err != nil {
		return "", "", fmt.Errorf("%w: %s: %w", ErrRepository, dir, err)
	}
	for _, p := range packages {
		if v := p.get("Version"); p.get("Package") == name && (version == "" || deb.CompareVersions(version, v) < 0) {
			version, digest = v, p.get("SHA256")
		}
	}
	return version, digest, nil
}
