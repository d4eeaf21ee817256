package deb

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"time"
)

// KeyringPackageName is the package with the keys of an apt repository.
const KeyringPackageName = "go-rocm-archive-keyring"

// KeyringOptions are the inputs of BuildKeyring.
type KeyringOptions struct {
	// Version is the upstream version, such as "20261123.143005".
	Version string
	// Epoch is the time of every entry.
	Epoch time.Time
	// KeyringPath is where Keyring is installed, SourcesPath the same for
	// Sources, which administrators may change.
	KeyringPath, SourcesPath string
	Keyring, Sources         []byte
	// Fingerprints name the keys in the description.
	Fingerprints []string
	// OutDir receives the package; it must exist.
	OutDir string
	// Maintainer is the name and address in the control file; empty means
	// DefaultMaintainer.
	Maintainer string
}

// BuildKeyring writes the package with which a machine comes to trust an apt
// repository and to know its address. It returns the package's path.
func BuildKeyring(ctx context.Context, o KeyringOptions) (string, error) {
	if o.Version == "" || o.Epoch.Unix() <= 0 || len(o.Keyring) == 0 || len(o.Fingerprints) == 0 {
		return "", fmt.Errorf("%w: keyring: give a version, a time, and keys with their fingerprints", ErrOptions)
	}
	o.Maintainer = cmp.Or(o.Maintainer, DefaultMaintainer)
	epoch := o.Epoch.UTC().Truncate(time.Second)
	own, err := readAsset("expat.txt")
	if err != nil {
		return "", err
	}
	v := Version{Core: o.Version, Revision: "1"}
	changes, err := compress(fmt.Appendf(nil, "%s (%s) unstable; urgency=medium\n\n  * The keys and the address as of this time.\n\n -- %s  %s\n",
		KeyringPackageName, v, o.Maintainer, epoch.Format(time.RFC1123Z)))
	if err != nil {
		return "", err
	}
	p := pkg{
		name: KeyringPackageName, arch: "all", section: "misc",
		synopsis: "keys and address of the go-rocm apt repository",
		details: []string{
			"With this package installed, apt knows where the go-rocm packages are and checks their signatures.",
			"The keys are:",
		},
		entries: []entry{
			{path: o.KeyringPath, text: o.Keyring, mode: 0o644},
			{path: o.SourcesPath, text: o.Sources, mode: 0o644, conf: true},
			{path: path.Join("/usr/share/doc", KeyringPackageName, "copyright"), text: terms{own: string(own)}.copyright(epoch), mode: 0o644},
			{path: path.Join("/usr/share/doc", KeyringPackageName, "changelog.Debian.gz"), text: changes, mode: 0o644},
		},
		overrides: append(packageOverrides(),
			override{"package-installs-apt-sources *", "Naming the repository to apt is what the package is for."},
			override{"new-package-uses-date-based-version-number *", "The version is the time of the keys; they have no other."},
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
