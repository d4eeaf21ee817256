package apt

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/deb822"
	"forge.lthn.ai/core/go-rocm/packaging/deb"
)

const (
	// sourcesFile is the file for /etc/apt/sources.list.d.
	sourcesFile = "go-rocm.sources"
	// KeyringFile is the name of the keyring, without armour, at the top of a
	// signed repository.
	KeyringFile = "go-rocm-archive-keyring.gpg"
	// keyringDir is where the keyring package installs it.
	keyringDir = "/usr/share/keyrings/"
)

// sources returns the deb822-style source of the repository for apt
// (sources.list(5)).
func sources(o Options) []byte {
	p := deb822.Paragraph{
		{Name: "Types", Value: "deb"},
		{Name: "URIs", Value: strings.TrimRight(o.URL, "/") + "/"},
		{Name: "Suites", Value: o.Suite},
		{Name: "Components", Value: component},
		{Name: "Architectures", Value: architecture},
	}
	if o.Keys == nil {
		return fmt.Appendf(nil, "# This repository is unsigned: anyone between it and you can change the packages.\n%sTrusted: yes\n", p)
	}
	return []byte(append(p, deb822.Field{Name: "Signed-By", Value: keyringDir + KeyringFile}).String())
}

// keyringVersionLayout is the layout of the time in a keyring package's version.
const keyringVersionLayout = "20060102.150405"

// keyringPackage builds the package with the repository's keys and address. While
// its contents would be the same, it returns the published one, so that clients
// do not download a new one after each publish.
func keyringPackage(ctx context.Context, o Options, s *suite, work string) (string, error) {
	keys, err := o.Keys.Keyring()
	if err != nil {
		return "", err
	}
	build := func(at time.Time) (string, error) {
		return deb.BuildKeyring(ctx, deb.KeyringOptions{
			Version: at.Format(keyringVersionLayout), Epoch: at, OutDir: work, Maintainer: o.Maintainer,
			KeyringPath: keyringDir + KeyringFile, Keyring: keys, Sources: sources(o),
			SourcesPath: "/etc/apt/sources.list.d/" + sourcesFile, Fingerprints: o.Keys.Fingerprints(),
		})
	}
	at, sum, ok := newestKeyring(s)
	if !ok {
		return build(o.Date)
	}
	rebuilt, err := build(at)
	if err != nil {
		return "", err
	}
	if rebuiltSum, _, err := hashFile(ctx, rebuilt); err != nil || rebuiltSum == sum {
		return rebuilt, err
	}
	if err := os.Remove(rebuilt); err != nil {
		return "", fmt.Errorf("build the keyring package: %w", err)
	}
	if !o.Date.After(at) {
		return "", fmt.Errorf("%w: the keys or the address have changed since %s: set a later date", ErrDate, at.Format(dateLayout))
	}
	return build(o.Date)
}

// newestKeyring finds the newest published keyring package by the time in its
// version.
func newestKeyring(s *suite) (at time.Time, sum string, ok bool) {
	for _, p := range s.packages {
		if p.Get("Package") != deb.KeyringPackageName {
			continue
		}
		version, _, _ := strings.Cut(p.Get("Version"), "-")
		if t, err := time.Parse(keyringVersionLayout, version); err == nil && t.After(at) {
			at, sum, ok = t, p.Get("SHA256"), true
		}
	}
	return at, sum, ok
}
