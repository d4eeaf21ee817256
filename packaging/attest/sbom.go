// Package attest writes the bill of materials (SBOM) of a release, as CycloneDX and
// as SPDX, and its provenance.
//
// All facts come from the build: the bundles' manifests, the command's build
// information and the collected licences. The package neither builds nor downloads
// nor signs anything; pkg/release signs.
package attest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/packaging/licences"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// ErrInventory reports an inventory that is incomplete or inconsistent.
var ErrInventory = errors.New("bill of materials")

// Inventory lists the contents of a release.
type Inventory struct {
	// Version of go-rocm.
	Version string
	// Epoch is SOURCE_DATE_EPOCH, the time in the documents.
	Epoch time.Time
	// Linked lists the third-party components in the command, from packaging/licences.
	Linked []licences.Component
	// Bundles lists the bundles of the release in any order.
	Bundles []Bundle
}

// Bundle is a bundle of the release.
type Bundle struct {
	Manifest *bundle.Manifest
	// Components lists the third-party components in it, from packaging/licences.
	Components []licences.Component
}

// part is a component with the facts for both formats.
type part struct {
	licences.Component
	version string
	purl    string   // https://github.com/package-url/purl-spec
	sha256  string   // of the package file that it came from, if any
	facts   []fact   // further identities
	bundles []string // names of the bundles that contain it; empty if linked
}

type fact struct{ name, value string }

// Names of facts: a module's hash from go.sum, and the SHA-512 of an npm package's file
// as in package-lock.json.
const (
	factGoSum     = "go:sum"
	factIntegrity = "npm:integrity"
)

// complete validates the inventory and sorts its bundles by name.
func (m Inventory) complete() (Inventory, error) {
	if m.Version == "" || m.Epoch.Unix() <= 0 || len(m.Linked) == 0 || len(m.Bundles) == 0 {
		return m, fmt.Errorf("%w: version, epoch, linked components and bundles are required", ErrInventory)
	}
	for _, b := range m.Bundles {
		if b.Manifest == nil || len(b.Components) == 0 {
			return m, fmt.Errorf("%w: the manifest and components of each bundle are required", ErrInventory)
		}
	}
	m.Bundles = slices.SortedFunc(slices.Values(m.Bundles), func(a, b Bundle) int { return strings.Compare(a.Manifest.Name, b.Manifest.Name) })
	for i := 1; i < len(m.Bundles); i++ {
		if name := m.Bundles[i].Manifest.Name; name == m.Bundles[i-1].Manifest.Name {
			return m, fmt.Errorf("%w: duplicate bundle %s", ErrInventory, name)
		}
	}
	return m, nil
}

// parts returns the components, identified by the manifests and sorted by package
// URL. A component of several bundles is listed once. A component that its
// bundle's manifest lists neither as a toolchain package nor as the compiled
// source is an error, because it cannot be identified.
func (m Inventory) parts() ([]part, error) {
	out := map[string]part{}
	for _, c := range m.Linked {
		p := part{Component: c, version: c.Version}
		switch c.Kind {
		case licences.GoModule:
			p.purl = "pkg:golang/" + strings.ToLower(c.Name) + "@" + escapeVersion(c.Version)
			if c.Sum != "" {
				p.facts = append(p.facts, fact{factGoSum, c.Sum})
			}
		case licences.GoRuntime:
			p.purl = "pkg:generic/go@" + escapeVersion(c.Version)
		case licences.WebPage:
			p.purl = c.PURL
			if c.Sum != "" {
				p.facts = append(p.facts, fact{factIntegrity, c.Sum})
			}
		default:
			return nil, fmt.Errorf("%w: linked component %s has the kind %q", ErrInventory, c.Name, c.Kind)
		}
		if err := addPart(out, p); err != nil {
			return nil, err
		}
	}
	for _, b := range m.Bundles {
		for _, c := range b.Components {
			if c.Kind != licences.Bundled {
				return nil, fmt.Errorf("%w: bundled component %s has the kind %q", ErrInventory, c.Name, c.Kind)
			}
			p := part{Component: c, bundles: []string{b.Manifest.Name}}
			if err := p.identify(b.Manifest); err != nil {
				return nil, err
			}
			if err := addPart(out, p); err != nil {
				return nil, err
			}
		}
	}
	return slices.SortedFunc(maps.Values(out), func(a, b part) int { return strings.Compare(a.purl, b.purl) }), nil
}

// addPart adds a part under its package URL. If the same part of another bundle is
// there, it merges the licences of both.
func addPart(to map[string]part, p part) error {
	had, ok := to[p.purl]
	switch {
	case !ok:
		to[p.purl] = p
		return nil
	case len(p.bundles) == 0 || len(had.bundles) == 0 || slices.Contains(had.bundles, p.bundles[0]):
		return fmt.Errorf("%w: duplicate component %s", ErrInventory, p.purl)
	case had.sha256 != p.sha256 || !slices.Equal(had.facts, p.facts):
		return fmt.Errorf("%w: %s differs between %s and %s", ErrInventory, p.purl, had.bundles[0], p.bundles[0])
	}
	had.bundles = union(had.bundles, p.bundles)
	had.Texts = union(had.Texts, p.Texts)
	had.Holders = union(had.Holders, p.Holders)
	had.Licences = slices.Sorted(slices.Values(union(had.Licences, p.Licences)))
	to[p.purl] = had
	return nil
}

// union returns a, followed by the elements that only b has.
func union[T comparable](a, b []T) []T {
	out := slices.Clone(a)
	for _, e := range b {
		if !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out
}

// escapeVersion escapes a version for package URLs: "+" is encoded, ":" is not.
func escapeVersion(version string) string {
	return strings.ReplaceAll(url.PathEscape(version), "+", "%2B")
}

// sourceName is the component name of the compiled source in a bundle.
const sourceName = "llama.cpp"

// identify looks up a bundled component in the manifest.
func (p *part) identify(m *bundle.Manifest) error {
	if p.Name == sourceName {
		p.version = m.Source.Tag
		p.purl = "pkg:github/ggml-org/llama.cpp@" + escapeVersion(m.Source.Tag)
		p.facts = append(p.facts, fact{"git:tree", m.Source.Tree})
		return nil
	}
	for _, known := range m.Toolchain.Packages {
		if known.Name == p.Name {
			p.version, p.sha256 = known.Version, known.SHA256
			p.purl = "pkg:deb/" + vendor(m.Toolchain.Kind) + "/" + known.Name + "@" + escapeVersion(known.Version)
			if known.Arch != "" {
				p.purl += "?arch=" + url.QueryEscape(known.Arch)
			}
			return nil
		}
	}
	return fmt.Errorf("%w: the bundle contains the licence of %s, but its manifest lists no package with that name", ErrInventory, p.Name)
}

// vendor returns the distribution of a toolchain's packages. AMD's images are based
// on Ubuntu.
func vendor(toolchain string) string {
	if strings.HasPrefix(toolchain, "debian") {
		return "debian"
	}
	return "ubuntu"
}

// identity returns a digest of the inventory, from which the documents' unique
// names are derived. It is the same for the same release.
func (m Inventory) identity(parts []part) (string, error) {
	type line struct {
		PURL, SHA256      string
		Licences, Bundles []string
		Texts             []licences.Text
	}
	var lines []line
	for _, p := range parts {
		lines = append(lines, line{p.purl, p.sha256, p.Licences, p.bundles, p.Texts})
	}
	var manifests []string
	for _, b := range m.Bundles {
		manifests = append(manifests, b.Manifest.Digest())
	}
	b, err := json.Marshal([]any{m.Version, m.Epoch.Unix(), manifests, lines})
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInventory, err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}
