package attest

import (
	"bytes"
	"fmt"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// CycloneDX writes the bill of materials as CycloneDX 1.6 JSON
// (https://cyclonedx.org/docs/1.6/json/). The same material gives the same bytes.
func CycloneDX(m Material) ([]byte, error) {
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
		Properties: &[]cdx.Property{
			{Name: "go-rocm:bundle", Value: m.Manifest.Name},
			{Name: "go-rocm:bundle:digest", Value: "sha256:" + m.Manifest.Digest()},
		},
	}
	components := make([]cdx.Component, 0, len(parts))
	refs := make([]string, 0, len(parts))
	for _, p := range parts {
		components = append(components, component(p))
		refs = append(refs, p.purl)
	}
	bom := cdx.NewBOM()
	bom.SerialNumber = "urn:uuid:" + uuidFrom(id)
	bom.Metadata = &cdx.Metadata{Timestamp: m.Epoch.UTC().Format(time.RFC3339), Component: &root}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: root.BOMRef, Dependencies: &refs}}

	var b bytes.Buffer
	if err := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMaterial, err)
	}
	return b.Bytes(), nil
}

func rootPURL(m Material) string {
	return "pkg:golang/forge.lthn.ai/core/go-rocm@" + inPURL("v"+m.Version)
}

// component is a part in CycloneDX's words. Licences are named, not given as
// SPDX identifiers: Debian's short names are no such identifiers.
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

// uuidFrom makes a version 8 UUID (RFC 9562, "custom") of a hex digest.
func uuidFrom(digest string) string {
	d := []byte(digest[:32])
	d[12], d[16] = '8', "89ab"[d[16]%4]
	return fmt.Sprintf("%s-%s-%s-%s-%s", d[:8], d[8:12], d[12:16], d[16:20], d[20:32])
}
