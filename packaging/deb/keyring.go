package deb

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"time"
)

// KeyringPackageName is the name of the package with the keys of an apt repository.
const KeyringPackageName = "go-rocm-archive-keyring"

// KeyringOptions are the inputs of BuildKeyring.
type KeyringOptions struct {
	// Version is the upstream version, such as "20261123.143005".
	Version string
	// Epoch is the time of every entry.
	Epoch time.Time
	// KeyringPath and SourcesPath are the installation paths of Keyring and
	// Sources. Sources is a conffile, so administrators may change it.
	KeyringPath, SourcesPath string
	Keyring, Sources         []byte
	// Fingerprints of the keys, for the description.
	Fingerprints []string
	// OutDir is the directory for the package; it must exist.
	OutDir string
	// Maintainer is the name and address in the control file; empty means
	// DefaultMaintainer.
	Maintainer string
}

// BuildKeyring writes the package that configures apt to use and trust a
// repository, and returns its path.
func BuildKeyring(ctx context.Context, o KeyringOptions) (string, error) {
	if o.Version == "" || o.Epoch.Unix() <= 0 || len(o.Keyring) == 0 || len(o.Fingerprints) == 0 {
		return "", fmt.Errorf("%w: keyring: version, time, keys and their fingerprints are required", ErrOptions)
	}
	o.Maintainer = cmp.Or(o.Maintainer, DefaultMaintainer)
	epoch := o.Epoch.UTC().Truncate(time.Second)
	own, err := readAsset("expat.txt")
	if err != nil {
		return "", err
	}
	v := Version{Core: o.Version, Revision: "1"}
	changes, err := compress(fmt.Appendf(nil, "%s (%s) unstable; urgency=medium\n\n  * Keys and address of the repository as of this date.\n\n -- %s  %s\n",
		KeyringPackageName, v, o.Maintainer, epoch.Format(time.RFC1123Z)))
	if err != nil {
		return "", err
	}
	p := pkg{
		name: KeyringPackageName, arch: "all", section: "misc",
		synopsis: "keys and address of the go-rocm apt repository",
		details: []string{
			"This package configures apt to download go-rocm packages and to verify their signatures.",
			"The keys are:",
		},
		entries: []entry{
			{path: o.KeyringPath, text: o.Keyring, mode: 0o644},
			{path: o.SourcesPath, text: o.Sources, mode: 0o644, conf: true},
			{path: path.Join("/usr/share/doc", KeyringPackageName, "copyright"), text: terms{own: string(own)}.copyright(epoch), mode: 0o644},
			{path: path.Join("/usr/share/doc", KeyringPackageName, "changelog.Debian.gz"), text: changes, mode: 0o644},
		},
		overrides: append(packageOverrides(),
			override{"package-installs-apt-sources *", "Configuring the repository for apt is the purpose of this package."},
			override{"new-package-uses-date-based-version-number *", "The version is the date of the keys; they have no other version."},
		),
	}
	p.details = append(p.details, o.Fingerprints...)
	p.addOverrides()
	name, err := p.write(ctx, Options{Epoch: epoch, OutDir: o.OutDir, Maintainer: o.Maintainer}, v)
	if err != nil {
		return "", fmt.Errorf("write package %s: %w", p.name, err)
	}
	return name, nil
}
