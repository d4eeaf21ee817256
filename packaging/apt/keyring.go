package apt

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/packaging/deb"
)

// keyringForm is how a version of the package with the keys tells its time.
const keyringForm = "20060102.150405"

// keyringPackage makes the package with the repository's keys and address. The
// one that is published stays as long as it says the same, so that clients do not
// fetch a new one with each publish.
func keyringPackage(ctx context.Context, o Options, s *state, work string) (string, error) {
	keys, err := o.Keys.Keyring()
	if err != nil {
		return "", err
	}
	build := func(at time.Time) (string, error) {
		return deb.BuildKeyring(ctx, deb.KeyringOptions{
			Version: at.Format(keyringForm), Epoch: at, OutDir: work, Maintainer: o.Maintainer,
			KeyringPath: keyringDir + KeyringFile, Keyring: keys, Sources: sources(o),
			SourcesPath: "/etc/apt/sources.list.d/" + sourcesName, Fingerprints: o.Keys.Fingerprints(),
		})
	}
	at, sum, ok := newestKeyring(s)
	if !ok {
		return build(o.Date)
	}
	same, err := build(at)
	if err != nil {
		return "", err
	}
	if have, _, err := measure(ctx, same); err != nil || have == sum {
		return same, err
	}
	if err := os.Remove(same); err != nil {
		return "", fmt.Errorf("make the package with the keys: %w", err)
	}
	if !o.Date.After(at) {
		return "", fmt.Errorf("%w: the keys or the address changed since %s: give a later date", ErrDate, at.Format(dateForm))
	}
	return build(o.Date)
}

// newestKeyring finds the published package with the keys by the time in its
// version.
func newestKeyring(s *state) (at time.Time, sum string, ok bool) {
	for _, p := range s.packages {
		if p.get("Package") != deb.KeyringPackageName {
			continue
		}
		version, _, _ := strings.Cut(p.get("Version"), "-")
		if t, err := time.Parse(keyringForm, version); err == nil && t.After(at) {
			at, sum, ok = t, p.get("SHA256"), true
		}
	}
	return at, sum, ok
}
