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
	"net/url"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/packaging/origin"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// ErrMaterial says that a component of a release cannot be stated.
var ErrMaterial = errors.New("bill of materials")

// Material is what a bill of materials is written from.
type Material struct {
	// Version is go-rocm's own.
	Version string
	// Epoch is the time that the documents name, SOURCE_DATE_EPOCH.
	Epoch time.Time
	// Manifest describes the bundle of the release.
	Manifest *bundle.Manifest
	// Components are other people's work in the release, from packaging/origin.
	Components []origin.Component
}

// part is a component with what both formats say of it.
type part struct {
	origin.Component
	version string
	purl    string // https://github.com/package-url/purl-spec
	sha256  string // of the package file it came from; empty where there was none
	facts   []fact // further identities
}

type fact struct{ name, value string }

// factGoSum is the name of a module's hash as go.sum writes it.
const factGoSum = "go:sum"

// parts joins the components with what the manifest knows of them, sorted by
// package URL. A component of the bundle that the manifest knows neither as a
// package of the toolchain nor as the compiled source is an error: nobody could
// tell what it is.
func (m Material) parts() ([]part, error) {
	if m.Version == "" || m.Epoch.Unix() <= 0 || m.Manifest == nil || len(m.Components) == 0 {
		return nil, fmt.Errorf("%w: version, epoch, manifest and components are needed", ErrMaterial)
	}
	var out []part
	for _, c := range m.Components {
		p := part{Component: c, version: c.Version}
		switch c.Kind {
		case origin.GoModule:
			p.purl = "pkg:golang/" + strings.ToLower(c.Name) + "@" + inPURL(c.Version)
			if c.Sum != "" {
				p.facts = append(p.facts, fact{factGoSum, c.Sum})
			}
		case origin.GoRuntime:
			p.purl = "pkg:generic/go@" + inPURL(c.Version)
		case origin.Bundled:
			if err := p.identify(m.Manifest); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("%w: %s is of the unknown kind %q", ErrMaterial, c.Name, c.Kind)
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b part) int { return strings.Compare(a.purl, b.purl) })
	for i := 1; i < len(out); i++ {
		if out[i].purl == out[i-1].purl {
			return nil, fmt.Errorf("%w: %s stands there twice", ErrMaterial, out[i].purl)
		}
	}
	return out, nil
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
	return fmt.Errorf("%w: the bundle carries the licence of %s, but its manifest lists no package of that name", ErrMaterial, p.Name)
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
func (m Material) identity(parts []part) (string, error) {
	type line struct {
		PURL, SHA256 string
		Licences     []string
		Texts        []origin.Text
	}
	var lines []line
	for _, p := range parts {
		lines = append(lines, line{p.purl, p.sha256, p.Licences, p.Texts})
	}
	b, err := json.Marshal([]any{m.Version, m.Epoch.Unix(), m.Manifest.Digest(), lines})
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrMaterial, err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}
