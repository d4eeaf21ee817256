package deb

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/packaging/licences"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// installedBundle is where the command looks for an installed bundle.
const installedBundle = "/usr/lib/go-rocm/llama"

// unpacked is a bundle's folder that was found to be what its manifest says.
type unpacked struct {
	dir      string
	manifest *bundle.Manifest
	licences []licences.Component
}

// readBundle reads and verifies the bundle in dir.
func readBundle(ctx context.Context, dir string) (*unpacked, error) {
	m, err := bundle.ReadManifest(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w: give the folder of an unpacked bundle", ErrBundle, err)
	}
	if err := bundle.Verify(ctx, dir, m); err != nil {
		return nil, fmt.Errorf("%w: %s differs from its manifest: %w: build it anew", ErrBundle, dir, err)
	}
	licences, err := licences.FromBundle(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	return &unpacked{dir: dir, manifest: m, licences: licences}, nil
}

// entries are the bundle's files as a package installs them.
func (u *unpacked) entries() []entry {
	out := []entry{{
		path: path.Join(installedBundle, bundle.ManifestName),
		from: filepath.Join(u.dir, bundle.ManifestName),
		mode: 0o644,
	}}
	for _, f := range u.manifest.Files {
		out = append(out, entry{
			path: path.Join(installedBundle, f.Path),
			from: filepath.Join(u.dir, filepath.FromSlash(f.Path)),
			mode: os.FileMode(f.Mode) & os.ModePerm,
		})
	}
	return out
}

// hostPackages are the packages, in Debian's archive or AMD's, with what the
// bundle takes from the machine.
func (u *unpacked) hostPackages() []string {
	if u.manifest.Host == nil {
		return nil
	}
	var out []string
	for _, l := range u.manifest.Host.Libraries {
		held := slices.DeleteFunc([]string{l.Debian, l.AMD}, func(name string) bool { return name == "" })
		if len(held) > 0 {
			out = append(out, strings.Join(held, " | "))
		}
	}
	return out
}

// BundlePackageName is the name of the package with a bundle: by its variant and,
// unless it is hermetic, its flavour.
func BundlePackageName(m *bundle.Manifest) string {
	return providedBundle + "-" + label(m)
}

func label(m *bundle.Manifest) string {
	if m.Flavour == bundle.FlavourHermetic {
		return m.Variant
	}
	return m.Variant + "-" + m.Flavour
}

// targets names the GPU targets for people, "none" when the bundle has no code
// for any.
func (u *unpacked) targets() string {
	var names []string
	for _, t := range u.manifest.Targets {
		names = append(names, fmt.Sprint(t))
	}
	if len(names) == 0 {
		return "none (it computes on the CPU)"
	}
	return strings.Join(names, ", ")
}
