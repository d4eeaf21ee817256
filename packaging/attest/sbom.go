// Package attest writes what a receiver traces a release by: a bill of materials
// in the two formats that tools read, and its provenance.
//
// It states facts that the build recorded (the bundle's manifest, the command's
// build information, the collected licences); it neither builds nor fetches, and
// it signs nothing: that is pkg/release.
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

// ErrInventory says that a component of a release cannot be stated.
var ErrInventory = errors.New("bill of materials")

// Inventory is what a bill of materials is written from.
type Inventory struct {
	// Version is go-rocm's own.
	Version string
	// Epoch is the time that the documents name, SOURCE_DATE_EPOCH.
	Epoch time.Time
	// Linked is other people's work in the command, from packaging/licences.
	Linked []licences.Component
	// Bundles are all that the release has, in any order.
	Bundles []Bundle
}

// Bundle is a bundle of the release.
type Bundle struct {
	Manifest *bundle.Manifest
	// Components is other people's work in it, from packaging/licences.
	Components []licences.Component
}

// part is a component with what both formats say of it.
type part struct {
	licences.Component
	version string
	purl    string   // https://github.com/package-url/purl-spec
	sha256  string   // of the package file it came from; empty where there was none
	facts   []fact   // further identities
	bundles []string // that have it; none for what is linked
}

type fact struct{ name, value string }

// factGoSum is the name of a module's hash as go.sum writes it.
const factGoSum = "go:sum"

// complete refuses material that says too little, and gives its bundles in the
// order of their names.
func (m Inventory) complete() (Inventory, error) {
	if m.Version == "" || m.Epoch.Unix() <= 0 || len(m.Linked) == 0 || len(m.Bundles) == 0 {
		return m, fmt.Errorf("%w: version, epoch, linked components and bundles are needed", ErrInventory)
	}
	for _, b := range m.Bundles {
		if b.Manifest == nil || len(b.Components) == 0 {
			return m, fmt.Errorf("%w: the manifest and components of each bundle are needed", ErrInventory)
		}
	}
	m.Bundles = slices.SortedFunc(slices.Values(m.Bundles), func(a, b Bundle) int { return strings.Compare(a.Manifest.Name, b.Manifest.Name) })
	for i := 1; i < len(m.Bundles); i++ {
		if name := m.Bundles[i].Manifest.Name; name == m.Bundles[i-1].Manifest.Name {
			return m, fmt.Errorf("%w: the bundle %s stands there twice", ErrInventory, name)
		}
	}
	return m, nil
}

// parts joins the components with what the manifests know of them, sorted by
// package URL; what several bundles have stands there once. A component of a
// bundle that its manifest knows neither as a package of the toolchain nor as the
// compiled source is an error: nobody could tell what it is.
func (m Inventory) parts() ([]part, error) {
	out := map[string]part{}
	for _, c := range m.Linked {
		p := part{Component: c, version: c.Version}
		switch c.Kind {
		case licences.GoModule:
			p.purl = "pkg:golang/" + strings.ToLower(c.Name) + "@" + inPURL(c.Version)
			if c.Sum != "" {
				p.facts = append(p.facts, fact{factGoSum, c.Sum})
			}
		case licences.GoRuntime:
			p.purl = "pkg:generic/go@" + inPURL(c.Version)
		default:
			return nil, fmt.Errorf("%w: %s is linked, and of the kind %q", ErrInventory, c.Name, c.Kind)
		}
		if err := addPart(out, p); err != nil {
			return nil, err
		}
	}
	for _, b := range m.Bundles {
		for _, c := range b.Components {
			if c.Kind != licences.Bundled {
				return nil, fmt.Errorf("%w: %s is in a bundle, and of the kind %q", ErrInventory, c.Name, c.Kind)
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

// addPart adds a part to those by package URL. One that is there already must be
// of another bundle and the same; its terms are those that either has.
func addPart(to map[string]part, p part) error {
	had, ok := to[p.purl]
	switch {
	case !ok:
		to[p.purl] = p
		return nil
	case len(p.bundles) == 0 || len(had.bundles) == 0 || slices.Contains(had.bundles, p.bundles[0]):
		return fmt.Errorf("%w: %s stands there twice", ErrInventory, p.purl)
	case had.sha256 != p.sha256 || !slices.Equal(had.facts, p.facts):
		return fmt.Errorf("%w: %s is one thing in %s and another in %s", ErrInventory, p.purl, had.bundles[0], p.bundles[0])
	}
	had.bundles = union(had.bundles, p.bundles)
	had.Texts = union(had.Texts, p.Texts)
	had.Holders = union(had.Holders, p.Holders)
	had.Licences = slices.Sorted(slices.Values(union(had.Licences, p.Licences)))
	to[p.purl] = had
	return nil
}

// union is a with what only b has behind it.
func union[T comparable](a, b []T) []T {
	out := slices.Clone(a)
	for _, e := range b {
		if !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out
}

// inPURL writes a version as package URLs have it: "+" is encoded, ":" is not.
func inPURL(version string) string {
	return strings.ReplaceAll(url.PathEscape(version), "+", "%2B")
}

// sourceName is the folder of the compiled source's licence in a bundle.
const sourceName = "llama.cpp"

// identify finds a bundled component in the manifest.
func (p *part) identify(m *bundle.Manifest) error {
	if p.Name == sourceName {
		p.version = m.Source.Tag
		p.purl = "pkg:github/ggml-org/llama.cpp@" + inPURL(m.Source.Tag)
		p.facts = append(p.facts, fact{"git:tree", m.Source.Tree})
		return nil
	}
	for _, known := range m.Toolchain.Packages {
		if known.Name == p.Name {
			p.version, p.sha256 = known.Version, known.SHA256
			p.purl = "pkg:deb/" + vendor(m.Toolchain.Kind) + "/" + known.Name + "@" + inPURL(known.Version)
			if known.Arch != "" {
				p.purl += "?arch=" + url.QueryEscape(known.Arch)
			}
			return nil
		}
	}
	return fmt.Errorf("%w: the bundle carries the licence of %s, but its manifest lists no package of that name", ErrInventory, p.Name)
}

// vendor is whose packages a toolchain has: AMD's images are made of Ubuntu's.
func vendor(toolchain string) string {
	if strings.HasPrefix(toolchain, "debian") {
		return "debian"
	}
	return "ubuntu"
}

// identity is a digest over everything that the documents state, from which
// their unique names are made: the same release names them the same.
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
