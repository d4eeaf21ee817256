package attest

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// CycloneDX returns the bill of materials as CycloneDX 1.6 JSON
// (https://cyclonedx.org/docs/1.6/json/). The release depends on the components
// that are linked into the command and on its bundles; each bundle depends on its
// components. The same inventory produces the same bytes.
func CycloneDX(m Inventory) ([]byte, error) {
	m, err := m.complete()
	if err != nil {
		return nil, err
	}
	parts, err := m.parts()
	if err != nil {
		return nil, err
	}
	id, err := m.identity(parts)
	if err != nil {
		return nil, err
	}
	root := cdx.Component{
		BOMRef: rootPURL(m), Type: cdx.ComponentTypeApplication, Name: "go-rocm", Version: m.Version, PackageURL: rootPURL(m),
		Licenses: &cdx.Licenses{{License: &cdx.License{ID: "MIT"}}},
	}
	components := make([]cdx.Component, 0, len(parts)+len(m.Bundles))
	for _, p := range parts {
		components = append(components, component(p))
	}
	own := refs(parts, func(p part) bool { return len(p.bundles) == 0 })
	var dependencies []cdx.Dependency
	for _, b := range m.Bundles {
		c := bundleComponent(b.Manifest)
		components, own = append(components, c), append(own, c.BOMRef)
		inside := refs(parts, func(p part) bool { return slices.Contains(p.bundles, b.Manifest.Name) })
		dependencies = append(dependencies, cdx.Dependency{Ref: c.BOMRef, Dependencies: &inside})
	}
	dependencies = append([]cdx.Dependency{{Ref: root.BOMRef, Dependencies: &own}}, dependencies...)
	bom := cdx.NewBOM()
	bom.SerialNumber = "urn:uuid:" + uuidFrom(id)
	bom.Metadata = &cdx.Metadata{Timestamp: m.Epoch.UTC().Format(time.RFC3339), Component: &root}
	bom.Components = &components
	bom.Dependencies = &dependencies

	var b bytes.Buffer
	if err := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInventory, err)
	}
	return b.Bytes(), nil
}

// bundleComponent returns a bundle as a CycloneDX component.
func bundleComponent(m *bundle.Manifest) cdx.Component {
	return cdx.Component{
		BOMRef: "bundle:" + m.Name, Type: cdx.ComponentTypeApplication, Name: m.Name, Version: m.Version,
		Properties: &[]cdx.Property{{Name: "go-rocm:bundle:digest", Value: "sha256:" + m.Digest()}},
	}
}

// refs returns the references of the wanted parts.
func refs(parts []part, wanted func(part) bool) []string {
	out := []string{}
	for _, p := range parts {
		if wanted(p) {
			out = append(out, p.purl)
		}
	}
	return out
}

func rootPURL(m Inventory) string {
	return "pkg:golang/forge.lthn.ai/core/go-rocm@" + escapeVersion("v"+m.Version)
}

// component returns a part as a CycloneDX component. Its licences have names, not
// SPDX identifiers, because Debian's short names are none.
func component(p part) cdx.Component {
	c := cdx.Component{
		BOMRef: p.purl, Type: cdx.ComponentTypeLibrary, Name: p.Name, Version: p.version, PackageURL: p.purl,
	}
	var licences cdx.Licenses
	for _, name := range p.Licences {
		licences = append(licences, cdx.LicenseChoice{License: &cdx.License{Name: name}})
	}
	if len(licences) > 0 {
		c.Licenses = &licences
	}
	for i, h := range p.Holders {
		if i > 0 {
			c.Copyright += "\n"
		}
		c.Copyright += h
	}
	if p.sha256 != "" {
		c.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: p.sha256}}
	}
	var facts []cdx.Property
	for _, f := range p.facts {
		facts = append(facts, cdx.Property{Name: f.name, Value: f.value})
	}
	if len(facts) > 0 {
		c.Properties = &facts
	}
	return c
}

// uuidFrom derives a version 8 UUID (RFC 9562, "custom") from a hex digest.
func uuidFrom(digest string) string {
	d := []byte(digest[:32])
	d[12], d[16] = '8', "89ab"[d[16]%4]
	return fmt.Sprintf("%s-%s-%s-%s-%s", d[:8], d[8:12], d[12:16], d[16:20], d[20:32])
}
